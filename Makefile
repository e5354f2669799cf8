# Two commands do it all: `make demo` and `make test`. Both set up .venv first, once.

PYTHON ?= python3
COMPOSE ?= docker-compose
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH := $(VENV)/.installed-bench
TEST_WEB := $(VENV)/.installed-test-web
TEST_LESSON := $(VENV)/.installed-test-lesson
TEST_CLUSTER := $(VENV)/.installed-test-cluster
INTEROP := .venv-interop
OLDEST_TRITON := 3.6.0
TRITON := .triton-$(OLDEST_TRITON)
PERF := .perf-analyzer
PROTOS := mnist37_protos/v1/mnist37.proto mnist37_protos/inference/open_inference.proto
STUBS := $(foreach proto,$(PROTOS),$(addprefix $(proto:.proto=_pb2),.py .pyi _grpc.py))
PROTOC := $(BIN)/python -m grpc_tools.protoc -I protos

.PHONY: demo test test-web test-lesson lesson test-cluster picture page-cost check soak fuzz endure attack chaos front-kills pictures bench device device-compile interop perf protos stack clean

demo: $(INSTALLED)
	@$(BIN)/mnist37 demo

test: $(INSTALLED)
	$(BIN)/python -m pytest --quiet --numprocesses 2 --dist worksteal -m "not alone"
	$(BIN)/python -m pytest --quiet -m alone

# The page in a real browser, Debian's Chromium or the one that MNIST37_CHROMIUM names.
test-web: $(TEST_WEB) chromium-there
	$(BIN)/python -m pytest --quiet --numprocesses 2 --dist worksteal tests/web \
	  --ignore tests/web/test_cost.py

# The lesson, offline from top to bottom: every output is the one in the notebook.
test-lesson: $(TEST_LESSON)
	$(BIN)/python -m pytest --quiet tests/lesson

# The lesson's notebook again: made of lesson/mnist37_lesson/lesson.md, and run.
lesson: $(TEST_LESSON)
	$(BIN)/python lesson/make_lesson.py

# A server and followers in Ray, in a network namespace with lo alone; skipped where that may not be.
test-cluster: $(TEST_CLUSTER)
	GRPC_ENABLE_FORK_SUPPORT=0 $(BIN)/python -m pytest --quiet tests/cluster

# What the page costs: its start, an answer, training beside it, many browsers; on a quiet machine.
page-cost: $(TEST_WEB) chromium-there
	$(BIN)/python -m pytest --quiet tests/web/test_cost.py

# The picture docs/page.png, for the README: the page with a drawing, after a training from zero.
picture: $(TEST_WEB) chromium-there
	PYTHONPATH=tests $(BIN)/python tests/web/picture.py docs/page.png

chromium-there:
	@command -v $(or $(MNIST37_CHROMIUM),chromium) >/dev/null || \
	  { echo "needs Chromium: apt-get install chromium, or MNIST37_CHROMIUM=FILE"; exit 1; }

# A server that is killed 1,000 times at random, and must end as if it never was.
soak: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python tests/stress/crashes.py 1000

# What comes in from outside, a million inputs to each target; TARGETS="tokens predict" those alone.
fuzz: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[fuzz]'
	PYTHONPATH=tests $(BIN)/python tests/stress/fuzz.py 1000000 $(TARGETS)

# An hour of mixed load, or MINUTES=5: memory, threads and files stay what they were.
endure: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python tests/stress/endurance.py $(or $(MINUTES),60)

# All attacks in turn for an hour, or MINUTES=5, beside callers who must notice nothing.
attack: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python tests/stress/attacks.py $(or $(MINUTES),60)

# An hour of faults of owner and followers, or MINUTES=5: every answer is what was written.
chaos: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m stress.chaos.run $(or $(MINUTES),60)

front-kills: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m stress.front_kills $(or $(MINUTES),60)

# What photos cost in accuracy against the raw images: 1,000 of each condition, or COUNT=100.
pictures: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python tests/stress/pictures.py $(or $(COUNT),1000)

# How near the limit the service is; ONLY="predict both" measures those alone.
bench: $(BENCH)
	$(BIN)/python -m benchmarks $(ONLY)

# The tests and benchmarks for a CUDA device, by the Python there, without network.
device:
	$(PYTHON) -m benchmarks.on_device

# The kernels for CUDA by the oldest compiler supported, torch 2.11's; make test has the newest one.
device-compile: $(INSTALLED) $(TRITON)/.installed
	PYTHONPATH=$(TRITON) MNIST37_TRITON=$(OLDEST_TRITON) \
	  $(BIN)/python -m pytest --quiet --numprocesses 2 tests/unit/mnist37/test_compiled_kernels.py

# Clients of the Open Inference Protocol, and grpcurl, as their makers publish them.
interop: $(INSTALLED) $(INTEROP)/.installed
	MNIST37_INTEROP=$(INTEROP) $(BIN)/python -m pytest --quiet tests/interop

# NVIDIA's perf_analyzer against a server; where it cannot run, it says what is missing.
perf: $(INSTALLED) $(PERF)/.installed
	@$(BIN)/python -m benchmarks.perf_analyzer $(PERF)/perf_analyzer/bin/perf_analyzer

# The stack in containers: its tests, then kills of server, followers and front while others read.
stack: $(INSTALLED)
	$(COMPOSE) up --build --scale follower=3 --exit-code-from tests
	COMPOSE="$(COMPOSE)" PYTHONPATH=tests $(BIN)/python tests/stack/kills.py

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@made=$$(mktemp -d) && \
	  $(PROTOC) --python_out=$$made --pyi_out=$$made --grpc_python_out=$$made $(PROTOS) && \
	  for stub in $(STUBS); do diff -u protos/$$stub $$made/$$stub || \
	    { echo "stubs are not what protoc makes: run make protos"; exit 1; }; done && \
	  rm -r $$made && echo "stubs are what protoc makes"

protos: $(INSTALLED)
	$(PROTOC) --python_out=protos --pyi_out=protos --grpc_python_out=protos $(PROTOS)

clean:
	rm -rf $(VENV) $(INTEROP) $(TRITON) $(PERF)

# Everything at the versions in constraints.txt; again when those or the needs change.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mnist37 needs Python 3.11 or later; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up $(VENV), once; torch is large, this takes a few minutes ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[server,web,front,tensorboard,dev]'
	@touch $@

# What is measured against, and what draws it.
$(BENCH): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[server,web,bench]'
	@touch $@

$(TEST_WEB): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[server,web,test-web]'
	@touch $@

$(TEST_LESSON): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[server,lesson]'
	@touch $@

$(TEST_CLUSTER): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[server,ray]'
	@touch $@

$(INTEROP)/.installed: tests/interop/requirements.txt
	@test -x $(INTEROP)/bin/python || $(PYTHON) -m venv $(INTEROP)
	@$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# For a platform by name: elsewhere pip takes a placeholder of an earlier version instead.
$(PERF)/.installed: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --only-binary :all: --platform manylinux_2_38_x86_64 --target $(PERF) perf-analyzer==2.60.0
	@touch $@

$(TRITON)/.installed: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(TRITON) triton==$(OLDEST_TRITON)
	@touch $@
