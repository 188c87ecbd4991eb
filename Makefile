# Run `make help` for the targets. Each target creates the environment that it needs, once.

PYTHON ?= python3
BAG ?=
TOPIC ?=
SOAK_MINUTES ?= 30
COMPARE ?=

ENVIRONMENT = $(PYTHON) .ci/environment.py
# A sourced ROS 2 has set both variables; its entries are kept.
RUN = PYTHONPATH="$$PWD$${PYTHONPATH:+:$$PYTHONPATH}" AMENT_PREFIX_PATH="$${AMENT_PREFIX_PATH:-$$PWD/.venv-test}" .venv-test/bin/python

.PHONY: help demo test fuzz soak benchmark benchmark-training compare lint pins sbom clean

help:
	@echo 'make demo                       run the node on a rendered drive; results are in demo/'
	@echo 'make demo BAG=my.mcap TOPIC=/x  run the node on your bag; TOPIC is needed if it has several cameras'
	@echo 'make test                       build and run all tests with colcon'
	@echo 'make fuzz                       test with thousands of damaged files and messages'
	@echo 'make soak                       run the node with four cameras for SOAK_MINUTES (default: 30)'
	@echo 'make benchmark                  measure speed against PyTorch, start-up time and memory'
	@echo 'make benchmark-training         measure data loading and the time of a training step'
	@echo 'make compare                    compare STDC, BiSeNet and backbones of timm: speed, size, accuracy'
	@echo 'make lint                       run ruff check, ruff format and mypy'
	@echo 'make pins                       update the hashes in .ci/requirements-*.txt from the package index'
	@echo 'make sbom                       write the software bill of materials, docs/sbom.cdx.json'
	@echo 'make clean                      remove builds, environments and demo/'

demo:
	@$(ENVIRONMENT) .venv-demo requirements-demo.txt requirements-ros.txt
	@.venv-demo/bin/python -m stdc_ros.playback.demo $(if $(BAG),--bag '$(BAG)') $(if $(TOPIC),--topic '$(TOPIC)')

test:
	@$(ENVIRONMENT) .venv-test requirements-demo.txt requirements-ros.txt requirements-test.txt
	@PATH="$$PWD/.venv-test/bin:$$PATH" bash .ci/test

fuzz:
	@$(ENVIRONMENT) .venv-test requirements-demo.txt requirements-ros.txt requirements-test.txt
	@$(RUN) test/fuzz/fuzz_files.py --count 2000
	@$(RUN) test/fuzz/fuzz_messages.py --messages 100000 --camera raw
	@$(RUN) test/fuzz/fuzz_messages.py --messages 100000 --camera compressed
	@$(RUN) test/fuzz/fuzz_messages.py --messages 1000000 --direct

soak:
	@$(ENVIRONMENT) .venv-test requirements-demo.txt requirements-ros.txt requirements-test.txt
	@$(RUN) test/soak/soak.py --minutes $(SOAK_MINUTES)

benchmark:
	@$(ENVIRONMENT) .venv-test requirements-demo.txt requirements-ros.txt requirements-test.txt
	@$(RUN) -m stdc_core.commands.main benchmark --int8
	@$(RUN) benchmarks/node.py

benchmark-training:
	@$(ENVIRONMENT) .venv-test requirements-demo.txt requirements-ros.txt requirements-test.txt
	@$(RUN) benchmarks/training.py

compare:
	@$(ENVIRONMENT) .venv-compare requirements-demo.txt requirements-compare.txt
	@PYTHONPATH=. .venv-compare/bin/python benchmarks/compare.py $(COMPARE)

lint:
	@$(ENVIRONMENT) .venv-test requirements-demo.txt requirements-ros.txt requirements-test.txt
	@.venv-test/bin/ruff check .
	@.venv-test/bin/ruff format --check .
	@.venv-test/bin/mypy

pins:
	@$(ENVIRONMENT) .venv-tools requirements-tools.txt
	@.venv-tools/bin/python .ci/pin.py .ci/requirements-*.txt

sbom:
	@$(ENVIRONMENT) .venv-demo requirements-demo.txt requirements-ros.txt
	@$(ENVIRONMENT) .venv-tools requirements-tools.txt
	@.venv-tools/bin/python .ci/sbom.py .venv-demo docs/sbom.cdx.json

clean:
	rm -rf build install log demo .venv-compare .venv-demo .venv-test .venv-tools .pytest_cache .ruff_cache .hypothesis
