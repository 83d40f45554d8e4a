# runbook - see README.md.
#
#   make            build/runbook                     make demo       try it on throw-away ssh servers
#   make demo-hub   and a hub moved between clusters
#   make test       build, then every spec            make test SPEC=spec/x_spec.lua JOBS=1
#   make bench      measure, next to other tools      make lint
#   make deps       every package, now                make install    PREFIX=/usr/local DESTDIR=
#   make world-kube the specs' clusters, 8 minutes    make clean      SAN=1: ASan and UBSan, in build/san
#
# Each target first installs what it needs and this machine lacks (src/deps.sh; DEPS=no: not).
# CC, CPPFLAGS, CFLAGS, LDFLAGS, LDLIBS, PREFIX, DESTDIR and BUILD are the caller's; what the sources need is in RB_*.

PREFIX ?= /usr/local
CFLAGS ?= -O2 -g
BUILD  ?= build
LUA    ?= lua5.4

ifdef SAN
BUILD  := build/san
RB_SAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
export UBSAN_OPTIONS := print_stacktrace=1
endif

PKGS_BUILD := ca-certificates gcc libc6-dev libcurl4-openssl-dev libedit-dev libldns-dev liblua5.4-dev libsqlite3-dev libssl-dev \
              libuv1-dev libwslay-dev libxxhash-dev libyaml-dev lua-argparse lua5.4 make musl-tools pkg-config zlib1g-dev
PKGS_RUN   := libcurl4 libedit2 libldns3 libwslay1 openssh-client rsync
PKGS_WORLD := acl age attr bind9 bind9-dnsutils btrfs-progs busybox chromium curl debian-archive-keyring e2fsprogs fuse3 \
              iproute2 libfuse3-dev libpam0g-dev lua-busted openssh-server openssl lua-dkjson procps python3 python3-websockets sqlite3 sudo util-linux
PKGS_LINT  := cppcheck lua-check shellcheck
PKGS_BENCH := ansible-core clustershell fpart pdsh rclone

VERSION := $(shell sed -n 's/.*RUNBOOK_VERSION "\(.*\)".*/\1/p' src/runbook.h)

# -iquote: our yaml.h is not the one of <yaml.h>
RB_CPPFLAGS = -D_GNU_SOURCE -iquote src $(DEP_CPPFLAGS)
RB_CFLAGS  := -std=c11 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Werror $(RB_SAN)

ENGINES  := $(sort $(filter-out src/main.c,$(wildcard src/*.c)))
BINDINGS := $(sort $(wildcard src/lua/*.c))
MODULES  := $(shell grep -l '^luaopen_' $(BINDINGS))	# the others are parts of these
BAKED    := $(sort $(shell find lib/runbook lib/man runbooks examples -type f ! -name '.*' ! -name '*.c' 2>/dev/null))

# The program for the far sides: static and small, whatever is installed there. With sanitizers only theirs are in it: it runs
# where libc is, which an image with little in it has.
ifdef SAN
FAR_CC   := $(CC)
FAR_LINK := $(RB_SAN) $(if $(findstring clang,$(CC)),-static-libsan,-static-libasan -static-libubsan) -static-libgcc -g
else
FAR_CC   ?= musl-gcc
FAR_LINK := -static -s
endif
FAR_SRC := $(wildcard src/far/*.c) src/entry.c src/frame.c
FAR     := $(BUILD)/far/runbook-far

GENERATED := $(BUILD)/modules.o $(BUILD)/embedded.o
LIB_OBJ   := $(ENGINES:src/%.c=$(BUILD)/%.o) $(BINDINGS:src/%.c=$(BUILD)/%.o) $(GENERATED)
OBJ       := $(LIB_OBJ) $(BUILD)/main.o

MAKEFLAGS += -j$(shell nproc)	# the caller's own -j wins

all: $(BUILD)/runbook $(BUILD)/librunbook.a

# Make builds what it includes, then reads everything again: so the packages come before all else.
ifneq ($(filter-out clean,$(or $(MAKECMDGOALS),all)),)
include $(BUILD)/deps/config.mk
endif

ifeq ($(DEPS),no)
DEPS_PACKAGES = mkdir -p $(@D) && touch $@
else
DEPS_PACKAGES = src/deps.sh packages $@ $(PKGS_$(@F))
endif

$(BUILD)/deps/BUILD $(BUILD)/deps/RUN $(BUILD)/deps/WORLD $(BUILD)/deps/LINT $(BUILD)/deps/BENCH: Makefile src/deps.sh
	$(DEPS_PACKAGES)

$(BUILD)/deps/config.mk: $(BUILD)/deps/BUILD
	src/deps.sh config $@

deps: $(BUILD)/deps/BUILD $(BUILD)/deps/RUN $(BUILD)/deps/WORLD $(BUILD)/deps/LINT $(BUILD)/deps/BENCH

$(BUILD)/runbook: $(BUILD)/main.o $(BUILD)/librunbook.a
	$(CC) $(RB_SAN) $(LDFLAGS) -o $@ $^ $(DEP_LIBS) $(LDLIBS)

# Whole in itself: who embeds it links the libraries of the distribution and nothing that was built here.
$(BUILD)/librunbook.a: $(LIB_OBJ)
	rm -f $@
	printf '%s\n' 'create $@' $(DEP_ARCHIVES:%='addlib %') $(LIB_OBJ:%='addmod %') save | $(AR) -M

$(BUILD)/%.o: src/%.c $(BUILD)/deps/config.mk
	@mkdir -p $(@D)
	$(CC) $(RB_CPPFLAGS) $(CPPFLAGS) $(RB_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(GENERATED): $(BUILD)/%.o: $(BUILD)/%.c
	$(CC) $(RB_CPPFLAGS) $(CPPFLAGS) $(RB_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/modules.c: src/embed.lua $(BUILD)/modules.list
	$(LUA) src/embed.lua modules $@ $(MODULES)

$(BUILD)/embedded.c: src/embed.lua $(BUILD)/embedded.list $(BAKED) $(FAR)
	$(LUA) src/embed.lua sources $@ $(BAKED) far=$(FAR)

# -idirafter: xxhash.h is the distribution's, all other headers are the static library's own.
$(FAR): $(FAR_SRC) $(wildcard src/far/*.h) src/entry.h src/frame.h $(BUILD)/deps/config.mk
	@mkdir -p $(@D)
	$(FAR_CC) $(FAR_LINK) -D_GNU_SOURCE -std=c11 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Werror \
		-O2 -idirafter /usr/include -pthread -o $@ $(FAR_SRC)

# The lists change when a file comes or goes, which no time stamp of the files that are left would tell.
$(BUILD)/modules.list: RB_LIST := $(MODULES)
$(BUILD)/embedded.list: RB_LIST := $(BAKED)
$(BUILD)/%.list: always
	@mkdir -p $(@D)
	@echo $(RB_LIST) | cmp -s - $@ || echo $(RB_LIST) > $@

# Programs the specs' world is made of.
WORLD_OF_PARTS := $(BUILD)/world/oracle $(BUILD)/world/slowfs
WORLD := $(patsubst spec/world/%.c,$(BUILD)/world/%,$(filter-out %/late.c %/pam_ask.c,$(wildcard spec/world/*.c))) $(WORLD_OF_PARTS)

$(BUILD)/world/%: spec/world/%.c $(BUILD)/deps/config.mk
	@mkdir -p $(@D)
	$(CC) -D_GNU_SOURCE $(CPPFLAGS) $(RB_CFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $<

# The servers that load it have no sanitizers.
$(BUILD)/world/pam_ask.so: spec/world/pam_ask.c $(BUILD)/deps/WORLD
	@mkdir -p $(@D)
	$(CC) -D_GNU_SOURCE $(CPPFLAGS) -std=c11 -Wall -Wextra -Werror $(CFLAGS) -fPIC -shared $(LDFLAGS) -o $@ $< -lpam

$(BUILD)/world/late.so: spec/world/late.c $(BUILD)/deps/BUILD
	@mkdir -p $(@D)
	$(CC) -D_GNU_SOURCE $(CPPFLAGS) -std=c11 -Wall -Wextra -Werror $(CFLAGS) -fPIC -shared $(LDFLAGS) -o $@ $<

$(BUILD)/world/oracle: $(wildcard spec/world/oracle/*.[ch])
$(BUILD)/world/oracle: RB_PARTS_LIBS = -lcrypto
$(BUILD)/world/slowfs: $(wildcard spec/world/slowfs/*.[ch])
$(BUILD)/world/slowfs: RB_PARTS_LIBS = $(shell pkg-config --cflags --libs fuse3)
$(WORLD_OF_PARTS): $(BUILD)/deps/config.mk $(BUILD)/deps/WORLD
	@mkdir -p $(@D)
	$(CC) -D_GNU_SOURCE $(CPPFLAGS) $(RB_CFLAGS) $(CFLAGS) $(LDFLAGS) -pthread -o $@ $(filter %.c,$^) $(RB_PARTS_LIBS)

# A program that embeds the library; a spec runs it.
$(BUILD)/examples/embed: examples/embed/embed.c $(BUILD)/librunbook.a
	@mkdir -p $(@D)
	$(CC) $(RB_CPPFLAGS) $(CPPFLAGS) $(RB_CFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(DEP_LIBS) $(LDLIBS)

# Servers with users, disks and process lists of their own are root's to make.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo)

# Clusters are built once per machine, outside of any checkout, and where root finds what its caller built.
WORLD_CACHE := RUNBOOK_WORLD_CACHE=$(or $(RUNBOOK_WORLD_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/runbook-world)

world-kube: $(BUILD)/deps/WORLD
	$(WORLD_CACHE) spec/world/kube/build.sh programs tools images hub

demo: $(BUILD)/runbook $(WORLD) $(BUILD)/deps/RUN $(BUILD)/deps/WORLD
	$(AS_ROOT) env RUNBOOK_BUILD=$(BUILD) $(WORLD_CACHE) $(BUILD)/runbook lua spec/world/demo.lua

demo-hub: $(BUILD)/runbook $(WORLD) $(BUILD)/deps/RUN $(BUILD)/deps/WORLD
	$(AS_ROOT) env RUNBOOK_BUILD=$(BUILD) $(WORLD_CACHE) $(BUILD)/runbook lua spec/world/demo_hub.lua

test: $(BUILD)/runbook $(BUILD)/examples/embed $(WORLD) $(BUILD)/world/late.so $(BUILD)/world/pam_ask.so $(BUILD)/deps/RUN $(BUILD)/deps/WORLD
	$(AS_ROOT) env RUNBOOK_BUILD=$(BUILD) $(WORLD_CACHE) JOBS=$(JOBS) $(BUILD)/runbook lua spec/run.lua $(or $(SPEC),spec)

bench: $(BUILD)/runbook $(WORLD) $(BUILD)/deps/RUN $(BUILD)/deps/WORLD $(BUILD)/deps/BENCH
	$(AS_ROOT) env RUNBOOK_BUILD=$(BUILD) $(WORLD_CACHE) ROWS=$(ROWS) SCALE=$(SCALE) TOOLS=$(TOOLS) \
		$(BUILD)/runbook lua spec/bench/run.lua $(SPEC)

lint: $(BUILD)/deps/LINT $(BUILD)/modules.c
	shellcheck -e SC2016 src/deps.sh .ci/run $(wildcard spec/world/*.sh spec/world/*/*.sh lib/runbook/*.sh lib/runbook/*/*.sh)
	luacheck --quiet $(wildcard lib/runbook runbooks spec examples src)
	cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
		--suppress=missingInclude -j$(shell nproc) -D_GNU_SOURCE -Isrc src spec/world

# Its prefix is this call's, so it is written at every one.
$(BUILD)/runbook.pc: always $(BUILD)/deps/config.mk
	printf '%s\n' 'prefix=$(PREFIX)' 'Name: runbook' 'Description: procedures that can be stopped, resumed and undone' \
		'Version: $(VERSION)' 'Requires: $(DEP_MODULES)' 'Cflags: -I$${prefix}/include' \
		'Libs: -L$${prefix}/lib -lrunbook -lwslay -ldl -lpthread' > $@

install: $(BUILD)/runbook $(BUILD)/librunbook.a $(BUILD)/runbook.pc $(BUILD)/deps/RUN
	install -D -m 755 $(BUILD)/runbook $(DESTDIR)$(PREFIX)/bin/runbook
	install -D -m 644 src/runbook.h $(DESTDIR)$(PREFIX)/include/runbook.h
	install -D -m 644 $(BUILD)/librunbook.a $(DESTDIR)$(PREFIX)/lib/librunbook.a
	install -D -m 644 $(BUILD)/runbook.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/runbook.pc
	$(foreach page,runbook.1 runbook-lua.3,$(call install-text,doc --man $(page),man/man$(subst .,,$(suffix $(page)))/$(page)))
	$(call install-text,completion bash,bash-completion/completions/runbook)
	$(call install-text,completion zsh,zsh/site-functions/_runbook)
	$(call install-text,completion fish,fish/vendor_completions.d/runbook.fish)

# What the program says of itself: $(call install-text,ITS WORDS,FILE below share)
define install-text
install -d $(dir $(DESTDIR)$(PREFIX)/share/$2)
	$(BUILD)/runbook $1 > $(DESTDIR)$(PREFIX)/share/$2
	chmod 644 $(DESTDIR)$(PREFIX)/share/$2
	
endef

clean:
	rm -rf $(BUILD)

always:
.PHONY: all deps world-kube demo demo-hub test bench lint install clean always
.DELETE_ON_ERROR:
.SECONDARY:
-include $(OBJ:.o=.d)
