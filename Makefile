# Weir. `make demo` and `make test` need nothing but git, make and a Debian.
#
#   make            the programs, build/release/weir and weirctl
#   make run        start it in the foreground with config/quickstart.yaml
#   make demo       install packages, build, and watch it balance real mail over three relays
#   make test       everything that CI runs (sanitizers on)
#   make check      the unit tests, dialog tables and fuzz corpus only
#   make lint       include floors, format, static analysis
#   make sim        balancing, limits and health in virtual time: tables, and the goals that are met
#   make bench      Weir beside HAProxy and nginx in one run
#   make fuzz       fuzz each target for FUZZ_SECONDS (default 60)
#   make scorecard  one line per row of the reliability and security scorecard
#   make install    into DESTDIR/PREFIX

VERSION := 0.1.0
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= gcc
PYTHON  := /usr/bin/python3

FLOORS  := net smtp config balancer health counters admin proxy
LIBS    := -lev -lyaml -lcares -lmicrohttpd -ljansson -lhiredis -lssl -lcrypto -lpthread -lm

WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wswitch-enum -Wpointer-arith \
           -Wwrite-strings -Wvla $(if $(CI)$(WERROR),-Werror)
CFLAGS  ?= -O2 -g
HARDEN  := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE -Wl,-z,relro,-z,now -pie
BASE    := -std=gnu17 -I. -D_GNU_SOURCE -DWEIR_VERSION='"$(VERSION)"' -MMD -MP $(WARN) -fno-strict-aliasing
# libev's header declares watchers in a way that strict aliasing warnings dislike; the code itself is clean.

FLAGS_release := $(CFLAGS) $(HARDEN)
FLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
FLAGS_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread

SOURCES := $(foreach f,$(FLOORS),$(wildcard $(f)/*.c))
MAINS   := proxy/main.c admin/weirctl.c
UNITS   := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))

all: build/release/weir build/release/weirctl

# What is being made, in a line; V=1 shows the commands.
Q   := $(if $(V),,@)
say = $(if $(V),@:,@printf '%-8s %s\n' $(1) $(2))

SIM_WRAP := -Wl,--wrap=clock_gettime,--wrap=check_start,--wrap=check_abort,--wrap=getrandom

# One set of rules for each flavour: release, asan (tests), tsan (threads).
define flavour
build/$(1)/%.o: %.c
	@mkdir -p $$(@D)
	$$(call say,compile,$$<)
	$(Q)$$(CC) $$(BASE) $$(FLAGS_$(1)) -c -o $$@ $$<
build/$(1)/libweir.a: $$(patsubst %.c,build/$(1)/%.o,$$(filter-out $$(MAINS),$$(SOURCES)))
	@rm -f $$@
	$(Q)ar rcs $$@ $$^
build/$(1)/weir: build/$(1)/proxy/main.o build/$(1)/libweir.a
	$$(call say,link,$$@)
	$(Q)$$(CC) $$(FLAGS_$(1)) -o $$@ $$^ $$(LIBS)
build/$(1)/weirctl: build/$(1)/admin/weirctl.o build/$(1)/libweir.a
	$$(call say,link,$$@)
	$(Q)$$(CC) $$(FLAGS_$(1)) -o $$@ $$^ -Wl,--as-needed $$(LIBS)
build/$(1)/admin/page.o: admin/page.html
build/$(1)/unit/%: build/$(1)/tests/unit/%.o build/$(1)/libweir.a
	@mkdir -p $$(@D)
	$$(call say,link,$$@)
	$(Q)$$(CC) $$(FLAGS_$(1)) -o $$@ $$^ -lcmocka $$(LIBS)
build/$(1)/replay/%: build/$(1)/tests/fuzz/%.o build/$(1)/tests/fuzz/replay.o build/$(1)/libweir.a
	@mkdir -p $$(@D)
	$$(call say,link,$$@)
	$(Q)$$(CC) $$(FLAGS_$(1)) -o $$@ $$^ $$(LIBS)
build/$(1)/bench/%: build/$(1)/tests/bench/%.o build/$(1)/libweir.a
	@mkdir -p $$(@D)
	$$(call say,link,$$@)
	$(Q)$$(CC) $$(FLAGS_$(1)) -o $$@ $$^ $$(LIBS)
# Virtual time: no libev, and its own clock and checks (tests/sim/loop.c, doubles.c).
build/$(1)/sim/sim: $$(patsubst %.c,build/$(1)/%.o,$$(wildcard tests/sim/*.c)) build/$(1)/libweir.a
	@mkdir -p $$(@D)
	$$(call say,link,$$@)
	$(Q)$$(CC) $$(FLAGS_$(1)) $(SIM_WRAP) -o $$@ $$^ $$(filter-out -lev,$$(LIBS))
-include $$(shell find build/$(1) -name '*.d' 2>/dev/null)
endef
$(foreach f,release asan tsan,$(eval $(call flavour,$(f))))
.SECONDARY:

include tests/tests.mk

run: build/release/weir
	build/release/weir -c config/quickstart.yaml

install: build/release/weir build/release/weirctl
	install -D -m 755 build/release/weir $(DESTDIR)$(PREFIX)/sbin/weir
	install -D -m 755 build/release/weirctl $(DESTDIR)$(PREFIX)/bin/weirctl
	install -D -m 644 config/quickstart.yaml $(DESTDIR)$(PREFIX)/share/doc/weir/quickstart.yaml
	install -d $(DESTDIR)$(PREFIX)/share/doc/weir/examples
	install -m 644 config/examples/*.yaml $(DESTDIR)$(PREFIX)/share/doc/weir/examples
	install -D -m 644 docs/weir.8 $(DESTDIR)$(PREFIX)/share/man/man8/weir.8
	install -D -m 644 docs/weirctl.8 $(DESTDIR)$(PREFIX)/share/man/man8/weirctl.8
	install -D -m 644 docs/weirctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/weirctl

# Packages that are missing: all of them, or what `make demo` and so on need.
deps:
	@docker/install-packages.sh
deps-demo deps-test deps-bench deps-fuzz:
	@docker/install-packages.sh build $(@:deps-%=%)

clean:
	rm -rf build

.PHONY: all run install deps deps-demo deps-test deps-bench deps-fuzz clean
