# make test, make demo: all that a fresh machine needs; see README.md
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: install test test-long check docs demo bench-data bench-overlap bench-apply bench-media bench-search bench-evidence bench-verdicts bench-mixtures bench-pack bench-agent bench-tui bench-cycles bench-demos bench-budgets bench-chaos bench-memory bench-forecast bench-gpu bench-cluster bench-instructions bench-t2v bench-distillation bench-peer wheel-test screenshots clean

install: $(READY)
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --no-compile -c constraints.txt torch==2.13.0 -e ".[dev]"
	touch $@

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal

test-long: $(READY)
	DJSB_TEST_KILLS=20 $(BIN)/python -m pytest -n auto --dist worksteal -m long
	DJSB_TEST_KILLS=20 $(BIN)/python -m pytest tests/whole/test_kill.py -m "not long"
	DJSB_TEST_EXAMPLES=10000 $(BIN)/python -m pytest -n auto --dist worksteal -m fuzz --timeout 14400

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY) # as a site in site/, without the network
	$(BIN)/python docs/reference/make.py
	$(BIN)/python docs/guides/ops.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

demo: $(READY)
	$(BIN)/djsb auto demo-study --demo

bench-data: $(READY)
	$(BIN)/python benchmarks/data.py --write
	$(BIN)/python benchmarks/headers.py --write
	$(BIN)/python benchmarks/shards.py --write

bench-overlap: $(READY)
	$(BIN)/python benchmarks/overlap.py --write

bench-media: $(READY)
	$(BIN)/python benchmarks/media.py --write
	$(BIN)/python benchmarks/start.py --write

bench-apply: $(READY)
	$(BIN)/python benchmarks/apply.py --write

bench-search: $(READY)
	$(BIN)/python benchmarks/search.py --write
	$(BIN)/python benchmarks/power.py --write
	$(BIN)/python benchmarks/proxy.py --write
	test ! -d ../shared/data/cifar-web || $(BIN)/python benchmarks/search.py --live ../shared/data/cifar-web --write

bench-evidence: $(READY)
	$(BIN)/python benchmarks/evidence.py --write

bench-verdicts: $(READY)
	$(BIN)/python benchmarks/verdicts.py --record
	$(BIN)/python benchmarks/verdicts.py --replay --write
	$(BIN)/python benchmarks/verdicts.py --write

bench-mixtures: $(READY)
	$(BIN)/python benchmarks/mixtures.py --write

bench-pack: $(READY)
	$(BIN)/python benchmarks/pack.py --write

bench-agent: $(READY)
	$(BIN)/python benchmarks/agent.py --write

bench-tui: $(READY)
	$(BIN)/python benchmarks/tui.py --write

bench-demos: $(READY)
	$(BIN)/python benchmarks/demos.py --write

bench-budgets: $(READY)
	test ! -d ../shared/data/cifar-web || $(BIN)/python benchmarks/budgets.py --write

bench-chaos: $(READY)
	$(BIN)/python benchmarks/chaos/run.py --write

bench-memory: $(READY)
	$(BIN)/python benchmarks/memory.py --write

bench-gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py --write --out gpu-benchmark.json

bench-forecast: $(READY)
	$(BIN)/python benchmarks/forecast.py --write

bench-cluster: $(READY)
	$(BIN)/python benchmarks/cluster.py --write

bench-cycles: $(READY)
	$(BIN)/python benchmarks/cycles.py --write

screenshots: $(READY)
	$(BIN)/python docs/images/make.py

wheel-test: $(READY)
	$(BIN)/python -m pytest tests/whole/test_wheel.py -m "slow or long"

clean:
	rm -rf $(VENV) demo-study build dist site

bench-peer: $(READY)
	$(BIN)/python benchmarks/peer.py --write

bench-t2v: $(READY)
	$(BIN)/python benchmarks/t2v.py --write

bench-distillation: $(READY)
	$(BIN)/python benchmarks/distillation.py --write

bench-instructions: $(READY)
	$(BIN)/python benchmarks/instructions.py --write
