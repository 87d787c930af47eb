# The report: docs/PHASE2C_IMPLEMENTATION_REPORT.md, measured and written by bench/report.py.

report:         ## docs/PHASE2C_IMPLEMENTATION_REPORT.md, measured anew (15 minutes); python3 bench/report.py --help
	@ci/deps.sh bench
	@$(MAKE) report-installed

REPORT_NEEDS := $(LIBS) $(BENCH_BIN) $(PHASE7_LIBS)
report-installed: $(REPORT_NEEDS)
	@python3 bench/report.py
build/t/bats/report: $(REPORT_NEEDS)

.PHONY: report report-installed
