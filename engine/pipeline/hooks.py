"""The hooks that a job may name. Where a hook has several components, `type` in extra_configs names the one."""

from __future__ import annotations

from dataclasses import dataclass

ANALYZER, MODEL_PROBE, GENERAL_PROBE = "ProbeViaAnalyzerHook", "ProbeViaModelInferHook", "GeneralProbeHook"
K_SIGMA, MODEL_FEEDBACK = "RefineRecipeViaKSigmaHook", "RefineRecipeViaModelFeedbackHook"
PROCESS, POOLS, CONVERT = "ProcessDataHook", "DataPoolManipulationHook", "GeneralDataExecutorHook"
TRAIN, INFER = "TrainModelHook", "InferModelHook"
EVALUATE_DATA, EVALUATE_MODEL = "EvaluateDataHook", "EvaluateModelHook"


@dataclass(frozen=True)
class Hook:
    """factory: the guide's name of what makes its components. typed: `type` in extra_configs names the component."""

    name: str
    factory: str
    typed: bool = True


HOOKS = {
    hook.name: hook
    for hook in (
        Hook(ANALYZER, "DataAnalyzerFactory", typed=False),
        Hook(MODEL_PROBE, "ModelInferEvaluatorFactory"),
        Hook(GENERAL_PROBE, "GeneralProbeFactory"),
        Hook(K_SIGMA, "k-sigma", typed=False),
        Hook(MODEL_FEEDBACK, "model feedback", typed=False),
        Hook(PROCESS, "DataExecutorFactory", typed=False),
        Hook(POOLS, "DataPoolManipulatorFactory"),
        Hook(CONVERT, "GeneralDataExecutorFactory"),
        Hook(TRAIN, "ModelTrainExecutorFactory"),
        Hook(INFER, "ModelInferExecutorFactory"),
        Hook(EVALUATE_DATA, "DataEvaluatorFactory"),
        Hook(EVALUATE_MODEL, "ModelEvaluatorFactory"),
    )
}
