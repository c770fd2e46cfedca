# Two commands matter: `make run` and `make test`. Both start from nothing but Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := app.py assembly.py ui backend db trainer benchmarks dev tests
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: bench-learning run demo test check fix screens bench-loop bench-desk bench-gate bench-pdpo bench-engine bench-together bench-gpu chromium clean help

help:
	@echo "make run         start Attune; prints its address and a link for the first admin"
	@echo "make demo        the same with six simulated users, on a scratch database"
	@echo "make test        checks and every test, on the real model, Chromium and Postgres"
	@echo "make check       ruff and mypy"
	@echo "make fix         format and mend what ruff can"
	@echo "make screens     renew the pictures in docs/screens"
	@echo "make bench-learning  what is learnt, from result files (FULL=1: the long form, AGAIN=1: anew)"
	@echo "                     SIZE=individual: of vectors of one's own and an adapter that all share"
	@echo "make bench-loop  measure the loop; one JSON line last"
	@echo "make bench-desk  measure the compare page under a quick keyboard user; one JSON line last"
	@echo "make bench-pdpo  measure an optimizer step beside its peers; one JSON line last"
	@echo "make bench-engine  measure the local engine beside transformers.generate; one JSON line last"
	@echo "make bench-together  measure what serving and training cost each other; one JSON line last"
	@echo "make bench-gpu   all that is measured on a GPU, in one go; one JSON line last"
	@echo "make bench-gate  the gate against 322 bad and 80 good candidates; goes on where it stood"

run: $(VENV)/ready
	@$(BIN)/python app.py

# Six simulated users in a fresh folder, whatever the environment says of databases: short responses
# and many blind pairs, so that something is to be seen within minutes. Prompts ask for two or three
# sentences, as those did that the style directions were made with: most responses end by themselves
# then, and those that are cut off at the limit are all equally long, whatever somebody likes. Not lists against no lists: in
# so short responses hardly any has one, and a tie teaches nothing. The styled user model, as it shows
# first. The trainer does not step back: personas keep the engine busy without a break.
DEMO := shorter,longer,simple words,technical words,warm,sober
demo: $(VENV)/ready
	@folder=$$(mktemp -d "$${TMPDIR:-/tmp}/attune-demo-XXXXXX") && \
		echo "six simulated users will choose in a scratch database; its folder: $$folder" && \
		echo "open the link for the first admin below, make an account, then open the Lab" && \
		ATTUNE_DATA_DIR="$$folder" ATTUNE_DATABASE_URL= ATTUNE_PERSONAS="$(DEMO)" \
		ATTUNE_PROMPT_ENDING="Answer in two or three sentences." \
		ATTUNE_MAX_NEW_TOKENS=96 ATTUNE_ROUND_MIN_CHOICES=12 ATTUNE_BLIND_SHARE=0.2 \
		ATTUNE_USER_MODEL=styled ATTUNE_VARIED_SHARE=0.9 ATTUNE_TRAINER_NICE=0 \
		$(BIN)/python app.py

# Each worker takes whole files in turn, and has a database server, a browser and an app of its own.
WORKERS ?= 2
test: check chromium
	$(BIN)/python -m pytest --durations=15 \
		--numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

check: $(VENV)/ready-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

fix: $(VENV)/ready-dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# Renews the pictures in docs/screens.
screens: $(VENV)/ready-dev chromium
	$(BIN)/python -m pytest --screens -m browser

bench-loop: $(VENV)/ready-dev
	@$(BIN)/python -m benchmarks.loop

bench-desk: $(VENV)/ready-dev chromium
	@$(BIN)/python -m benchmarks.desk

bench-learning: $(VENV)/ready-dev
	@$(BIN)/python -m benchmarks.learning --size $(or $(SIZE),$(if $(FULL),full,plain)) $(if $(AGAIN),--again)

# TRL is compared with where it can be installed: in an environment of its own that looks into the
# first, since pandas, and with it the app, would take up what TRL brings along.
PEERS := $(VENV)/peers
bench-pdpo: $(VENV)/ready-dev
	@$(BIN)/python -m venv --without-pip $(PEERS) && $(BIN)/python -c \
		'import site; print(site.getsitepackages()[0])' > \
		"$$($(PEERS)/bin/python -c 'import site; print(site.getsitepackages()[0])')/first.pth"
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check \
		-r requirements-bench.txt || echo "TRL cannot be installed: the comparison leaves it out"
	@$(PEERS)/bin/python -m benchmarks.pdpo

bench-engine: $(VENV)/ready-dev
	@$(BIN)/python -m benchmarks.engine

bench-together: $(VENV)/ready-dev
	@$(BIN)/python -m benchmarks.together

# With the torch that knows the GPU: PYTHON=… is used as it is, and nothing is installed.
OUT ?= gpu-results
bench-gpu:
	@$(PYTHON) -m benchmarks.gpu --out $(OUT)

# Hours on two cores, most of them on the candidates; what is judged already stays.
bench-gate: $(VENV)/ready-dev
	@$(BIN)/python -m benchmarks.gate --resume

# Debian's Chromium where no browser is found; the tests drive whichever there is.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	command -v google-chrome >/dev/null || { \
		echo "installing Chromium from Debian's packages"; \
		as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$as_root apt-get update -qq && \
		$$as_root apt-get install -qq -y --no-install-recommends chromium >/dev/null; }

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Attune needs Python 3.11 or newer; set PYTHON=…"; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/ready: $(VENV)/created requirements.txt
	@echo "installing requirements into $(VENV)"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready requirements-dev.txt
	@$(PIP) -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
