"""The run, stage after stage: proposal, gate, decision, trials, evidence."""
