# The commands of this tree. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
TARGET := target/x86_64-unknown-linux-gnu
CARGO ?= cargo
DESTDIR ?=
PREFIX ?= /usr/local
LIBEXEC = $(PREFIX)/libexec/cabin
UNITS ?= /etc/systemd/system
PROFILE ?= release
DENY_VERSION := 0.20.2

.PHONY: help
help: ## what there is
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## from nothing to a Debian 12 you can log in to (needs root)
	@sh .ci/demo

.PHONY: demo-clean
demo-clean: ## take everything away that `make demo` made
	@sh .ci/demo clean

.PHONY: check
check: deny ## formatting, lints, house rules, docs in step with the code, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) build -p cabin
	$(CARGO) test -q -p cabin-tests --test tidy --test docs --test help
	for script in .ci/*; do sh -n $$script || exit 1; done

.PHONY: deny
deny: packages
	@command -v cargo-deny >/dev/null || (cd / && $(CARGO) install --locked cargo-deny --version $(DENY_VERSION))
	$(CARGO) deny --offline check bans licenses sources

.PHONY: test
test: packages build ## every test, those that need root included (installs what is missing)
	@sh .ci/sweep
	RUST_TEST_THREADS=4 $(CARGO) test --workspace --no-fail-fast

.PHONY: test-v2
test-v2: packages ## the product on a fresh Debian 12 with cgroup2 and AppArmor, in an emulated machine
	@$(if $(filter-out file default,$(origin PROFILE)),PROFILE=$(PROFILE)) sh .ci/test-v2

.PHONY: torture
torture: packages build ## the long forms of all promises, again and again for MINUTES (default 10): one line for each
	@sh .ci/sweep
	MINUTES=$${MINUTES:-10} sh .ci/torture

.PHONY: bench
bench: packages release ## times; with PEERS=debian beside Incus and LXD: see docs/bench.md
	$(if $(PEERS),$(CARGO) build -q -p cabin-tests --bin cabin-peers &&) \
	$(if $(PEERS),CABIN_PEERS=$(TARGET)/debug/cabin-peers) CABIN_PROFILE=release $(CARGO) run -q -p cabin-tests --bin cabin-bench -- $(BENCH_ARGS)

.PHONY: build release packages
build:
	$(CARGO) build --workspace
release:
	$(CARGO) build --workspace --release
packages:
	@sh .ci/packages

.PHONY: docs
docs: ## write docs/config.md and docs/cli.md anew from the tables they come from
	CABIN_BLESS=1 $(CARGO) test -q -p cabin-tests --test docs docs_are_fresh
	CABIN_BLESS=1 $(CARGO) test -q -p cabin

BINARIES := cabind cabin distrobuilder
HELPERS := cabin-init cabin-files cabin-unpack

.PHONY: install
install: ## binaries, units, completions, man pages (after `make release`; DESTDIR, PREFIX)
	@test -x $(TARGET)/$(PROFILE)/cabind || { echo "run \`make release\` first" >&2; exit 1; }
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(LIBEXEC) $(DESTDIR)$(UNITS) $(DESTDIR)/etc/sysctl.d \
	    $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	    $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	@# Each takes its place by a rename, so that whatever runs of an older version runs on.
	put() { install -m 755 $(TARGET)/$(PROFILE)/$$2 $$1/.$$2.new && mv -f $$1/.$$2.new $$1/$$2 || exit 1; }; \
	for name in $(HELPERS); do put $(DESTDIR)$(LIBEXEC) $$name; done; \
	for name in $(BINARIES); do put $(DESTDIR)$(PREFIX)/bin $$name; done
	for unit in cabind.service cabind.socket; do \
	    sed 's|@PREFIX@|$(PREFIX)|g' dist/$$unit >$(DESTDIR)$(UNITS)/$$unit || exit 1; done
	install -m 644 dist/90-cabin.conf $(DESTDIR)/etc/sysctl.d/90-cabin.conf
	$(TARGET)/$(PROFILE)/cabin manpage $(DESTDIR)$(PREFIX)/share/man/man1
	$(TARGET)/$(PROFILE)/cabin completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/cabin
	$(TARGET)/$(PROFILE)/cabin completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_cabin
	$(TARGET)/$(PROFILE)/cabin completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/cabin.fish
	@[ -n "$(DESTDIR)" ] || getent group cabin >/dev/null || groupadd --system cabin
	@[ -n "$(DESTDIR)" ] || sysctl -q -e -p /etc/sysctl.d/90-cabin.conf || echo "some limits of the kernel stay as they were" >&2
	@# A daemon that runs is followed by the new one; its instances run on.
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; \
	    systemctl try-restart cabind.service; systemctl is-active --quiet cabind.service || \
	    echo "start it: systemctl enable --now cabind.socket cabind.service"; fi

.PHONY: uninstall
uninstall: ## take away what `make install` put there (state in /var/lib/cabin stays)
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
	    systemctl disable --now cabind.service cabind.socket 2>/dev/null || true; fi
	rm -f $(BINARIES:%=$(DESTDIR)$(PREFIX)/bin/%) $(HELPERS:%=$(DESTDIR)$(LIBEXEC)/%)
	rmdir $(DESTDIR)$(LIBEXEC) 2>/dev/null || true
	rm -f $(DESTDIR)$(UNITS)/cabind.service $(DESTDIR)$(UNITS)/cabind.socket $(DESTDIR)/etc/sysctl.d/90-cabin.conf
	rm -f $(DESTDIR)$(PREFIX)/share/man/man1/cabin.1 $(DESTDIR)$(PREFIX)/share/man/man1/cabin-*.1
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/cabin \
	    $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_cabin \
	    $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/cabin.fish
	@# What containers that still run have there stays.
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; \
	    ls -d /run/cabin/containers/*/ >/dev/null 2>&1 || rm -rf --one-file-system /run/cabin; fi
