# Marea: `make help` lists the targets. One file list, no recursion, everything made goes to build/.

PREFIX ?= /usr/local
DESTDIR ?=
BUILD ?= build
ifeq ($(origin CC),default)
CC := gcc
endif
# Lua 5.4, under the name that the system has given it.
ifeq ($(origin LUA),undefined)
LUA := $(or $(firstword $(foreach name,lua5.4 lua54 lua,$(shell \
  $(name) -e 'if _VERSION == "Lua 5.4" then print "$(name)" end' 2>/dev/null))),lua5.4)
endif
# The one place of the version is the public header; debian/changelog and CHANGELOG.md are compared with it by the tests.
VERSION := $(shell sed -n 's/^\#define MAREA_VERSION "\(.*\)"/\1/p' core/marea.h 2>/dev/null)

# NO_BLAS=1 builds without OpenBLAS, by our own products: into a folder of its own, as with BUILD=build/no-blas.
NO_BLAS ?=

# What the build and the scripts need from Debian; `make setup` installs what is missing. festlex-cmu has the words of
# scripts/pronounce.lua, and is not asked for where there is no dpkg.
PACKAGES := gcc libc6-dev make pkg-config lua5.4 liblua5.4-dev $(if $(NO_BLAS),,libopenblas-pthread-dev) libpng-dev libjpeg62-turbo-dev zlib1g-dev \
            libminizip-dev libjansson-dev libprotobuf-c-dev protobuf-c-compiler libedit-dev lua-argparse gnuplot-nox fonts-dejavu-core festlex-cmu
# For the optional modules of bindings/extra.
EXTRA_PACKAGES := libhdf5-dev libsndfile1-dev libcsv-dev
TEST_PACKAGES := lua-busted tmux g++ $(EXTRA_PACKAGES)
# Programs that the tests put Marea into or compare it with; a test is skipped where its program is missing.
HOST_PACKAGES := lighttpd-modules-lua gringo curl python3-pil python3-numpy libonnx-testdata luajit2 neovim libnginx-mod-http-lua wrk
# With what `make models` gets models from packages of Python, and makes something to try them on.
MODEL_PACKAGES := python3-pip python3-pil espeak-ng sox fonts-dejavu-core
LINT_PACKAGES := lua-check clang-format git
NEON_PACKAGES := gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
DEB_PACKAGES := build-essential debhelper
COVERAGE_PACKAGES := python3
ABI_PACKAGES := abigail-tools git
JUPYTER_PACKAGES := python3-ipykernel jupyter-client jupyter-nbconvert
BROWSER_PACKAGES := lighttpd-modules-lua curl chromium chromium-driver
PEER_PACKAGES := python3-torch python3-numpy python3-venv libdnnl-dev libtcmalloc-minimal4

# Tables leave fields out that are zero.
WARN := -Wall -Wextra -Wno-missing-field-initializers -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat-security \
        -Werror=format-nonliteral -Werror=switch -Werror=unused-result -Werror=implicit-function-declaration
OPT ?= -O2
# No contraction of a*b+c unless the source says so (vec_fma): the same bits whatever the compiler merges.
CFLAGS ?= -g $(OPT)
SANITIZE ?=
ALL_CFLAGS = -std=gnu11 -fPIC -fvisibility=hidden -ffp-contract=off -pthread $(WARN) -Icore -Ibindings $(MODULE_CFLAGS) $(CFLAGS) $(SANITIZE)

comma := ,
# A word for the shell, whatever is in it: the places below may have spaces and quotes in their names. What make itself
# builds is named relative to this folder, so this folder may lie anywhere.
q = '$(subst ','\'',$(1))'
# pkg-config's names of Lua and OpenBLAS differ between distributions: the first that is there.
LUA_MODULE := $(or $(firstword $(foreach name,lua5.4 lua-5.4 lua54 lua,$(shell \
  pkg-config --exists '$(name) >= 5.4' '$(name) < 5.5' 2>/dev/null && echo $(name)))),lua5.4)
BLAS_MODULE := $(if $(NO_BLAS),,$(firstword $(foreach name,openblas openblasp openblas-pthreads,$(shell \
  pkg-config --exists $(name) 2>/dev/null && echo $(name)))))
MODULES := $(BLAS_MODULE) libpng libjpeg minizip zlib jansson libprotobuf-c
MODULE_CFLAGS := $(shell pkg-config --cflags $(MODULES) 2>/dev/null)
LIBS = $(if $(BLAS_MODULE)$(NO_BLAS),,-lopenblas) $(shell pkg-config --libs $(MODULES)) -lm -pthread
LUA_CFLAGS = $(shell pkg-config --cflags $(LUA_MODULE) 2>/dev/null)
LUA_LIBS = $(shell pkg-config --libs $(LUA_MODULE))
EDIT_LIBS = $(shell pkg-config --libs libedit)
# Addresses to fill in when the library is loaded, as bits (DT_RELR) instead of 24 bytes each: 70 KB less. Only if the
# linker can, and the C library is one that reads them (glibc 2.36, which then is the oldest that loads the result).
PACK := -Wl,-z,pack-relative-relocs
PACKED = $(shell new=$$(mktemp); \
  echo 'int puts(const char *); static int x; int *p = &x; int f(void) { return puts("") + *p; }' | \
  LC_ALL=C $(CC) -shared -fPIC $(PACK) -Wl,--fatal-warnings -x c - -o "$$new" 2>/dev/null && \
  grep -q GLIBC_ABI_DT_RELR "$$new" && echo $(PACK); rm -f "$$new")

# Optional modules, each with a library of its own, which neither the core nor the program needs: bindings/extra/NAME.c becomes
# lib/marea/NAME.so where that library is there, which is where EXTRA_NAME, the flags for it, is not empty. They know Lua, not the
# core. libcsv has no file for pkg-config.
flags_of = $(shell pkg-config --cflags --libs $(1) 2>/dev/null)
EXTRA_hdf5 := $(or $(call flags_of,hdf5),$(call flags_of,hdf5-serial))
EXTRA_sndfile := $(call flags_of,sndfile)
EXTRA_csv := $(shell printf '\043include <stddef.h>\n\043include <stdio.h>\n\043include <csv.h>\n' | $(CC) -E - >/dev/null 2>&1 && echo -lcsv)
EXTRAS := $(foreach extra,$(patsubst bindings/extra/%.c,%,$(wildcard bindings/extra/*.c)),$(if $(EXTRA_$(extra)),$(extra)))

CORE_SRC := $(filter-out core/blas_$(if $(NO_BLAS),open,own).c,$(wildcard core/*.c core/ops/*.c core/ops/*/*.c core/kernels/*.c core/io/*.c core/graph/*.c core/onnx/*.c))
BIND_SRC := $(wildcard bindings/*.c)
PROGRAM_SRC := $(wildcard bindings/program/*.c)
CORE_OBJ := $(CORE_SRC:%.c=$(BUILD)/obj/%.o) $(BUILD)/obj/onnx.pb-c.o
KERNEL_OBJ := $(filter $(BUILD)/obj/core/kernels/%,$(CORE_OBJ))
BIND_OBJ := $(BIND_SRC:%.c=$(BUILD)/obj/%.o) $(BUILD)/obj/bindings/lua_files.o
PROGRAM_OBJ := $(PROGRAM_SRC:%.c=$(BUILD)/obj/%.o)
LUA_FILES := $(shell find lua/marea -name '*.lua' | LC_ALL=C sort)

# Debian's Python, which finds Debian's packages.
PYTHON ?= /usr/bin/python3
KERNEL ?= $(BUILD)/jupyter/marea

LIBDIR ?= $(PREFIX)/lib
LUADIR ?= $(PREFIX)/share/lua/5.4
CMODDIR ?= $(LIBDIR)/lua/5.4
LUAJITDIR ?= $(PREFIX)/share/lua/5.1
MANDIR ?= $(PREFIX)/share/man
SHAREDIR := $(PREFIX)/share/marea
DOCDIR ?= $(PREFIX)/share/doc/marea

.PHONY: all help setup setup-test setup-hosts setup-lint vae mnist text squad models get-models test mistakes onnx-table c-tests examples locale test-locale test-asan fuzz fuzz-onnx \
        test-tsan test-neon test-no-blas runner test-runner test-places random-programs ulp coverage abi \
        bench bench-peers bench-kernels bench-loading interrupts soak lint types reference jupyter module install-module install \
        uninstall dist deb browser clean

PROGRAM := $(BUILD)/marea
MODULE := $(BUILD)/lib/marea/core.so
EXTRA_MODULES := $(EXTRAS:%=$(BUILD)/lib/marea/%.so)

all: $(PROGRAM) $(MODULE) $(EXTRA_MODULES) $(BUILD)/libmarea.a $(BUILD)/libmarea.so $(BUILD)/libmarea_lua.a ## build the program, the Lua module and the C library

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { gsub(/\$$\$$/, "$$", $$2); printf "  %-15s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- packages ----

# What is needed for what, as header:package, program:package, file:package or Lua module:package, with Debian's packages.
NEEDS_compiler = $(firstword $(CC)):gcc stdio.h:libc6-dev
NEEDS_library = $(NEEDS_compiler) pkg-config:pkg-config $(LUA):lua5.4 lua.h:liblua5.4-dev $(if $(NO_BLAS),,cblas.h:libopenblas-pthread-dev) png.h:libpng-dev jpeglib.h:libjpeg62-turbo-dev \
                jerror.h:libjpeg62-turbo-dev \
                zlib.h:zlib1g-dev minizip/unzip.h:libminizip-dev jansson.h:libjansson-dev \
                protobuf-c/protobuf-c.h:libprotobuf-c-dev protoc-c:protobuf-c-compiler
NEEDS_program = histedit.h:libedit-dev

# What else the targets need.
NEEDS_setup = $(NEEDS_library) $(NEEDS_program) argparse.lua:lua-argparse gnuplot:gnuplot-nox
NEEDS_test = $(NEEDS_setup) busted:lua-busted tmux:tmux $(CXX):g++
NEEDS_lint = luacheck:lua-check clang-format:clang-format git:git
NEEDS_neon = aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu qemu-aarch64:qemu-user
NEEDS_locale = localedef:libc-bin /usr/share/i18n/locales/de_DE:locales
NEEDS_abi = abidiff:abigail-tools git:git
NEEDS_coverage = gcov:gcc $(PYTHON):python3

# For the shell: what of a list is missing.
define find_missing
missing=; for need in $(1); do \
	  what=$${need%%:*}; \
	  case $$what in \
	    *.h) echo "#include <$$what>" | $(CC) $(CFLAGS) $(MODULE_CFLAGS) $(LUA_CFLAGS) -E -x c - ;; \
	    *.lua) $(LUA) -e "require '$${what%.lua}'" ;; \
	    *) command -v "$$what" || test -e "$$what" ;; \
	  esac >/dev/null 2>&1 || missing="$$missing\n  $$what (Debian's package $${need#*:})"; \
	done
endef

# Installs the Debian packages of a list that are missing, as root or with sudo, and says so. On a system without dpkg
# nothing is installed: it says what of the second list, of needs, is missing, and goes on when nothing is.
define install_packages
	@if ! { command -v dpkg && command -v apt-get; } >/dev/null 2>&1; then \
	  $(call find_missing,$(2)); \
	  [ -z "$$missing" ] && exit 0; \
	  printf "No dpkg here, so nothing was installed. Missing:$$missing\n" >&2; exit 1; \
	fi; \
	missing=; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  echo "Installing Debian packages:$$missing"; \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
endef

setup: ## install the Debian packages that are missing for building and running
	$(call install_packages,$(PACKAGES),$(NEEDS_setup))

setup-test:
	$(call install_packages,$(PACKAGES) $(TEST_PACKAGES),$(NEEDS_test))

setup-hosts: get-models ## install the programs that the tests put Marea into or compare it with: lighttpd, clingo, LuaJIT, PIL; models
	$(call install_packages,$(HOST_PACKAGES))

setup-lint:
	$(call install_packages,$(LINT_PACKAGES),$(NEEDS_lint))

# ---- the main job and data ----

vae: setup ## set up, build, train the VAE on the sample that ships with the project; pictures in out/vae
	@$(MAKE) --no-print-directory -j2 all
	$(PROGRAM) scripts/vae.lua

mnist: setup ## get the full MNIST into data/mnist (local folder $$MAREA_DATA, mirrors, npm), verified
	sh scripts/mnist.sh

text: setup ## get tinyshakespeare and SCAN into data/text (local folder $$MAREA_TEXT, their addresses), verified
	sh scripts/texts.sh text

squad: setup ## get SQuAD 1.1 into data/text (local folder $$MAREA_TEXT, its address), verified
	@$(MAKE) --no-print-directory -j2 $(PROGRAM)
	MAREA=$(PROGRAM) sh scripts/texts.sh squad

get-models: # what cannot be had is named, and no error
	$(call install_packages,$(MODEL_PACKAGES))
	-@PYTHON=$(PYTHON) sh examples/models/get.sh $(BUILD)/models

models: get-models ## public models from packages of Python, run: speech in a recording, text in a picture, types of files
	@$(MAKE) --no-print-directory -j2 $(PROGRAM)
	MAREA_MODELS=$(BUILD)/models $(PROGRAM) examples/models/speech.lua $(BUILD)/models/talk.wav
	MAREA_MODELS=$(BUILD)/models $(PROGRAM) examples/models/text.lua $(BUILD)/models/sign.png
	MAREA_MODELS=$(BUILD)/models $(PROGRAM) examples/models/filetype.lua README.md Makefile $(BUILD)/models/talk.wav $(BUILD)/models/sign.png $(PROGRAM)

# ---- building ----

# A part of the build begins when it finds what it needs; a file under found/ says that it has.
$(BUILD)/found/%:
	@$(call find_missing,$(NEEDS_$*)); \
	if [ -n "$$missing" ]; then \
	  printf "Missing for the build:$$missing\n\`make setup\` installs what is missing, on Debian.\n" >&2; exit 1; \
	fi
	@mkdir -p $(@D) && touch $@

# Kernels want all of the optimizer; under a sanitizer that would take minutes and half a gigabyte.
KERNEL_OPT = $(if $(SANITIZE),-O1,-O3) -fno-math-errno
# The only objects with instruction-set flags.
ifneq ($(filter x86_64%,$(shell $(CC) -dumpmachine)),)
$(BUILD)/obj/core/kernels/isa_avx2.o: ISA = $(KERNEL_OPT) -mavx2 -mfma
$(BUILD)/obj/core/kernels/isa_avx512.o: ISA = $(KERNEL_OPT) -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma \
                                             -mprefer-vector-width=512
$(BUILD)/obj/core/kernels/isa_avx512_bf16.o: ISA = $(KERNEL_OPT) -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma \
                                                  -mavx512bf16 -mprefer-vector-width=512
$(BUILD)/obj/core/kernels/isa_avx512_vnni.o: ISA = $(KERNEL_OPT) -mavx512f -mavx512bw -mavx512vl -mavx512vnni \
                                                  -mprefer-vector-width=512
$(BUILD)/obj/core/kernels/isa_amx.o: ISA = $(KERNEL_OPT) -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma \
                                          -mavx512bf16 -mamx-tile -mamx-bf16 -mamx-int8 -mprefer-vector-width=512
endif
# Scheduling before register allocation spills the sums of the convolution kernels; clang has no such pass.
$(BUILD)/obj/core/kernels/isa_neon.o: ISA = $(KERNEL_OPT) $(if $(findstring clang,$(CC)),,-fno-schedule-insns)
# Kernels in plain C are as fast at -O2, and 50 KB smaller.
$(BUILD)/obj/core/kernels/isa_generic.o $(BUILD)/obj/core/kernels/isa_generic_f64.o: ISA = $(subst -O3,-O2,$(KERNEL_OPT))
# What runs once a file, a call or a failure, or leaves loops over elements to kernels, is small rather than fast: 60 KB.
$(addprefix $(BUILD)/obj/core/,io/file.o io/json.o io/list.o io/npy.o io/npz.o io/pickle.o io/torch.o io/tree.o io/view.o io/gguf.o io/t7.o io/idx.o io/zip.o io/safetensors.o io/png.o io/jpeg.o io/picture.o \
  blame.o call.o context.o check.o \
  plan.o profile.o ops/loss.o ops/prod.o ops/int8.o ops/norm/batch_norm.o ops/norm/descriptors.o ops/conv/descriptors.o ops/conv/gradients.o \
  ops/conv/conv2d.o ops/conv/conv_transpose2d.o ops/conv/choose.o ops/conv/direct_images.o ops/conv/batch_images.o \
  ops/conv/winograd.o ops/conv/winograd_images.o ops/conv/winograd_weights.o ops/conv/geometry.o ops/recurrent/sequence.o \
  ops/recurrent/gru.o ops/recurrent/lstm.o ops/recurrent/rnn.o ops/attention/dot_product.o ops/loss_linear.o \
  ops/unary.o ops/activation.o): ISA = $(if $(SANITIZE),,-Os)
$(BUILD)/obj/bindings/%.o: private INCLUDE = $(LUA_CFLAGS) -fexceptions
# Nothing unwinds through the core: debuggers read .debug_frame, which is not loaded.
$(BUILD)/obj/core/%.o: private INCLUDE = -fno-asynchronous-unwind-tables

$(KERNEL_OBJ): | $(BUILD)/found/compiler
$(filter-out $(KERNEL_OBJ),$(CORE_OBJ)) $(BIND_OBJ) $(BUILD)/lua_files.c: | $(BUILD)/found/library
$(PROGRAM_OBJ): | $(BUILD)/found/library $(BUILD)/found/program

# The reader and writer of ONNX's messages, which protobuf-c's compiler makes.
$(BUILD)/onnx.pb-c.c: core/onnx/onnx.proto | $(BUILD)/found/library
	@mkdir -p $(@D)
	@protoc-c --c_out=$(@D) -I core/onnx $<
$(BUILD)/onnx.pb-c.h: $(BUILD)/onnx.pb-c.c
$(BUILD)/obj/onnx.pb-c.o: $(BUILD)/onnx.pb-c.c
	@mkdir -p $(@D)
	@$(CC) $(ALL_CFLAGS) -Os -DNDEBUG $(INCLUDE) -MMD -MP -c $< -o $@
$(BUILD)/obj/core/onnx/%.o: ISA = $(if $(SANITIZE),,-Os)
$(BUILD)/obj/core/graph/%.o: ISA = $(if $(SANITIZE),,-Os)
$(filter $(BUILD)/obj/core/onnx/%,$(CORE_OBJ)): private INCLUDE = -fno-asynchronous-unwind-tables -I$(BUILD)
$(filter $(BUILD)/obj/core/onnx/%,$(CORE_OBJ)): $(BUILD)/onnx.pb-c.c

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	@echo '  CC   $<'
	@$(CC) $(ALL_CFLAGS) $(ISA) $(INCLUDE) -MMD -MP -c $< -o $@

# The Lua files, compiled in. The folder's date tells of a file that is gone.
$(BUILD)/lua_files.c: bindings/embed.lua $(LUA_FILES) $(sort $(dir $(LUA_FILES)))
	@mkdir -p $(@D)
	@echo '  LUA  $@'
	@$(LUA) bindings/embed.lua $@ $(LUA_FILES)

$(BUILD)/obj/bindings/lua_files.o: $(BUILD)/lua_files.c bindings/bind.h
	@mkdir -p $(@D)
	@$(CC) $(ALL_CFLAGS) $(INCLUDE) -c $< -o $@

$(BUILD)/libmarea.a: $(CORE_OBJ)
	@echo '  AR   $@'
	@rm -f $@
	@$(AR) rcs $@ $^

# What a program with Lua in it links beside libmarea.
$(BUILD)/libmarea_lua.a: $(BIND_OBJ)
	@echo '  AR   $@'
	@rm -f $@
	@$(AR) rcs $@ $^

$(BUILD)/libmarea.so: $(CORE_OBJ)
	@echo '  LINK $@'
	@$(CC) -shared $(SANITIZE) $(LDFLAGS) $(PACKED) -Wl,-soname,libmarea.so.0 -o $@ $^ $(LIBS)

# A Lua of another version does not have all functions. It shall load the module all the same, which then says so; the
# function that says it is in each, and missing where a program hides its Lua.
$(BUILD)/obj/module.o: $(BIND_OBJ)
	@$(CC) -nostdlib -r -o $@.new $^
	@objcopy --wildcard --weaken-symbol='!luaL_error' --weaken-symbol='lua*' $@.new $@
	@rm $@.new

# Not linked to liblua: the symbols come from the program that loads the module. LINK_LUA=1 links it, for a program
# whose Lua is a library that it does not show to others (a plugin that was loaded with RTLD_LOCAL).
LINK_LUA ?=
$(MODULE): $(CORE_OBJ) $(BUILD)/obj/module.o
	@mkdir -p $(@D)
	@echo '  LINK $@'
	@$(CC) -shared $(SANITIZE) $(LDFLAGS) $(PACKED) -o $@ $^ $(LIBS) $(if $(LINK_LUA),-Wl$(comma)--no-as-needed $(LUA_LIBS))

$(EXTRA_MODULES): $(BUILD)/lib/marea/%.so: bindings/extra/%.c | $(BUILD)/found/library
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(ALL_CFLAGS) $(SANITIZE) $(LUA_CFLAGS) -shared $(LDFLAGS) $(PACKED) -o $@ $< $(EXTRA_$*) \
	  $(if $(LINK_LUA),-Wl$(comma)--no-as-needed $(LUA_LIBS))

$(PROGRAM): $(PROGRAM_OBJ) $(CORE_OBJ) $(BIND_OBJ)
	@echo '  LINK $@'
	@$(CC) $(SANITIZE) $(LDFLAGS) $(PACKED) -Wl,-E -o $@ $^ $(LIBS) $(LUA_LIBS) $(EDIT_LIBS)

-include $(CORE_OBJ:.o=.d) $(BIND_OBJ:.o=.d) $(PROGRAM_OBJ:.o=.d)

# ---- tests ----

# Debian's busted is a script in Lua, whose first line may name another Lua; that of luarocks is one of the shell.
BUSTED = $(shell path=$$(command -v busted) && { head -n 1 "$$path" | grep -q lua && printf '$(LUA) '; echo "$$path"; })
C_TESTS := $(patsubst spec/c/%_test.c,$(BUILD)/test/%,$(wildcard spec/c/*_test.c))

test: setup-test locale ## install what is missing, build, run every test, or those of SPECS="spec/conv_spec.lua"; ends with "N passed, N failed"
	@$(MAKE) --no-print-directory -j2 all c-tests
	@env -u OPENBLAS_CORETYPE $(BUSTED) $(SPECS)

c-tests: $(C_TESTS) $(BUILD)/test/interrupts $(BUILD)/test/linked/marea.so examples

# The module as LINK_LUA=1 makes it.
$(BUILD)/test/linked/marea.so: $(CORE_OBJ) $(BIND_OBJ)
	@mkdir -p $(@D)
	@echo '  LINK $@'
	@$(CC) -shared $(SANITIZE) -o $@ $^ $(LIBS) -Wl,--no-as-needed $(LUA_LIBS)

$(BUILD)/test/%: spec/c/%_test.c $(BUILD)/libmarea.a $(BIND_OBJ)
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(ALL_CFLAGS) $(LUA_CFLAGS) -o $@ $< $(BIND_OBJ) $(BUILD)/libmarea.a $(LIBS) $(LUA_LIBS)

$(BUILD)/test/io: spec/c/tree_cases.h
$(BUILD)/test/kernels: spec/c/reference.h spec/c/pairs.h spec/c/recurrent_cases.h spec/c/reduction_cases.h spec/c/attention_cases.h spec/c/bf16_cases.h spec/c/int8_cases.h spec/c/dtype_cases.h
$(addprefix $(BUILD)/test/,budget host log memory parallel profile trace threads): spec/c/report.h
$(BUILD)/test/io $(BUILD)/test/save: spec/c/io_support.h
$(BUILD)/test/onnx: private CFLAGS += -I$(BUILD)

# Calls of every function in the headers.
$(BUILD)/test/api_cases.inc: spec/c/api_cases.lua core/marea.h bindings/marea_lua.h spec/c/armor_test.c
	@mkdir -p $(@D)
	@echo '  LUA  $@'
	@$(LUA) $^ > $@.new && mv $@.new $@

$(BUILD)/test/armor: private CFLAGS += -I$(BUILD)/test
$(BUILD)/test/armor: $(BUILD)/test/api_cases.inc spec/c/report.h

# It loads the library and must not have in it what that brings along.
$(BUILD)/test/unload: spec/c/unload_test.c $(BUILD)/libmarea.so
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(ALL_CFLAGS) -o $@ $< -ldl

# ---- programs that embed Marea ----

EXAMPLES := $(patsubst examples/%.c,$(BUILD)/examples/%,$(wildcard examples/*.c examples/models/*.c)) \
            $(shell pkg-config --exists lua5.4-c++ 2>/dev/null && echo $(BUILD)/examples/host_cpp)
EXAMPLE_LIBS = $(BUILD)/libmarea_lua.a $(BUILD)/libmarea.a $(LIBS)

examples: $(EXAMPLES) ## build the programs of examples/

$(BUILD)/examples/%: examples/%.c $(BUILD)/libmarea_lua.a $(BUILD)/libmarea.a
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(ALL_CFLAGS) $(LUA_CFLAGS) -o $@ $< $(EXAMPLE_LIBS) $(LUA_LIBS)

# With the Lua that Debian builds as C++, whose errors are exceptions.
$(BUILD)/examples/host_cpp: examples/host.cpp $(BUILD)/libmarea_lua.a $(BUILD)/libmarea.a
	@mkdir -p $(@D)
	@echo '  CXX  $@'
	@$(CXX) -std=c++17 -g -O2 -Wall -Wextra $(SANITIZE) -Icore -Ibindings $(LUA_CFLAGS) -o $@ $< $(EXAMPLE_LIBS) -llua5.4-c++

# ---- made from the sources ----

types: $(BUILD)/types/marea.lua ## what editors read (LuaCATS): build/types/marea.lua, for lua-language-server

$(BUILD)/types/marea.lua: docs/generate/types.lua $(LUA_FILES) $(PROGRAM)
	@mkdir -p $(@D)
	@echo '  LUA  $@'
	@$(PROGRAM) $< $(LUA_FILES) > $@.new && mv $@.new $@

reference: all ## write docs/operators.md anew, from the operators' descriptors
	$(PROGRAM) docs/generate/operators.lua > docs/operators.md

onnx-table: all $(BUILD)/test/onnx ## write the table of docs/onnx.md anew, from the models of Debian's libonnx-testdata
	-@$(BUILD)/test/onnx $(foreach kind,node simple pytorch-converted pytorch-operator,/usr/share/libonnx-testdata/data/$(kind)/*) \
	  > $(BUILD)/onnx.txt
	@$(PROGRAM) docs/generate/onnx.lua $(BUILD)/onnx.txt < docs/onnx.md > $(BUILD)/onnx.md && cp $(BUILD)/onnx.md docs/onnx.md

mistakes: ## write spec/golden/mistakes anew: what the program says about each mistake, to be read before it is kept
	@$(MAKE) --no-print-directory -j2 all
	@env -u OPENBLAS_CORETYPE MAREA_UPDATE_MISTAKES=1 $(BUSTED) spec/mistakes_spec.lua

ASAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
ASAN_OPTIONS := detect_leaks=0:allocator_may_return_null=1

test-asan: setup-test ## the whole suite under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory -j2 BUILD=build/asan OPT=-O1 SANITIZE="$(ASAN)" all c-tests
	MAREA_BUILD=build/asan LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=$(ASAN_OPTIONS) $(BUSTED)

test-places: setup-test ## the whole suite in clones at three places: a folder named marea, a path with spaces and umlauts, a read-only home
	sh spec/places.sh

# Unoptimised, so that branches are the source's; counters are atomic, for threads.
coverage: setup-test locale ## the whole suite with gcov: lines and branches by folder, and those never taken of LIST="core/tape.c bindings"
	$(call install_packages,$(COVERAGE_PACKAGES),$(NEEDS_coverage))
	@$(MAKE) --no-print-directory -j2 BUILD=build/coverage OPT=-O0 SANITIZE="--coverage -fprofile-update=atomic" all c-tests
	@find build/coverage -name '*.gcda' -delete
	-@env -u OPENBLAS_CORETYPE MAREA_BUILD=build/coverage $(BUSTED) $(SPECS)
	@$(PYTHON) spec/coverage/report.py build/coverage/obj spec/coverage/unreachable.txt $(LIST)

abi: ## compare libmarea.so with that of the last tag, or of REF=commit, by abidiff
	$(call install_packages,$(ABI_PACKAGES),$(NEEDS_abi))
	@sh spec/abi.sh

PROGRAMS ?= 20000
SEED ?= 1

random-programs: setup-test ## PROGRAMS=20000 random programs of the Lua API from SEED=1 on, in and outside a sandbox, under both sanitizers
	@$(MAKE) --no-print-directory -j2 BUILD=build/asan OPT=-O1 SANITIZE="$(ASAN)" build/asan/marea
	@env -u OPENBLAS_CORETYPE MAREA_BUILD=build/asan ASAN_OPTIONS=$(ASAN_OPTIONS) build/asan/marea spec/random_programs.lua $(PROGRAMS) $(SEED)

# A locale with a comma in numbers, made here, so that nothing on the machine changes.
LOCALE := de_DE.UTF-8
$(BUILD)/locale/$(LOCALE)/LC_NUMERIC:
	@mkdir -p $(BUILD)/locale
	@localedef -i de_DE -f UTF-8 $(BUILD)/locale/$(LOCALE)

$(BUILD)/test/locale.so: spec/c/locale.c
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(ALL_CFLAGS) -shared -o $@ $<

locale: ## make the locale that the tests of numbers use; installs Debian's locales if they are missing
	$(call install_packages,locales,$(NEEDS_locale))
	@$(MAKE) --no-print-directory $(BUILD)/locale/$(LOCALE)/LC_NUMERIC

# LD_PRELOAD knows no quotes, and the folder may have spaces in its path.
test-locale: setup-test locale ## the whole suite in the locale de_DE
	@$(MAKE) --no-print-directory -j2 all c-tests $(BUILD)/test/locale.so
	@preload=$$(mktemp -d) && trap 'rm -r "$$preload"' EXIT && cp $(BUILD)/test/locale.so "$$preload" && \
	  env -u OPENBLAS_CORETYPE LOCPATH="$$(realpath -ms $(BUILD)/locale)" LC_ALL=$(LOCALE) LANGUAGE=en \
	  LD_PRELOAD="$$preload/locale.so" $(BUSTED)

# The parsers alone are instrumented; their memory is malloc's, so that the sanitizer sees each block's end.
FUZZ := 20000
FUZZ_SRC := spec/c/fuzz_main.c spec/c/fuzz_io.c $(wildcard core/io/*.c) core/text.c
FUZZ_EXTRA_SRC := spec/c/fuzz_extra.c $(EXTRAS:%=bindings/extra/%.c)
FUZZ_CC = $(CC) -std=gnu11 -g -O2 -fsanitize=address,undefined -fno-sanitize-recover=all $(WARN)

$(BUILD)/test/fuzz: $(FUZZ_SRC) spec/c/mutate.h $(BUILD)/libmarea.a
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(FUZZ_CC) -Icore $(MODULE_CFLAGS) -Dmarea_alloc=fuzz_alloc -Dmarea_free=fuzz_free -o $@ $(FUZZ_SRC) $(BUILD)/libmarea.a $(LIBS)

$(BUILD)/test/fuzz_extra: $(FUZZ_EXTRA_SRC) spec/c/mutate.h
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(FUZZ_CC) $(LUA_CFLAGS) -o $@ $(FUZZ_EXTRA_SRC) $(foreach extra,$(EXTRAS),$(EXTRA_$(extra))) $(LUA_LIBS)

FUZZ_MODELS = $(foreach kind,node simple pytorch-operator,/usr/share/libonnx-testdata/data/$(kind)/*)

$(BUILD)/fuzz/test/fuzz_onnx: spec/c/fuzz_onnx.c $(CORE_SRC)
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/fuzz SANITIZE="$(ASAN)" CFLAGS="-g -O1" $(BUILD)/fuzz/libmarea.a
	@mkdir -p $(@D)
	@$(CC) $(ALL_CFLAGS) $(ASAN) -o $@ $< $(BUILD)/fuzz/libmarea.a $(LIBS)

fuzz-onnx: $(BUILD)/fuzz/test/fuzz_onnx ## damage $(FUZZ) models of Debian's libonnx-testdata and run them under AddressSanitizer
	ASAN_OPTIONS=$(ASAN_OPTIONS) $< $(FUZZ) 1 $(FUZZ_MODELS)

fuzz: setup-test ## mutate $(FUZZ) files of each format and read them under AddressSanitizer
	@$(MAKE) --no-print-directory -j2 $(BUILD)/test/fuzz $(BUILD)/test/fuzz_extra
	ASAN_OPTIONS=allocator_may_return_null=1 $(BUILD)/test/fuzz $(FUZZ)
	$(BUILD)/test/fuzz_extra $(FUZZ)

test-tsan: setup-test ## 8 Lua states with 8 threads each train for 1,000 steps under ThreadSanitizer
	@$(MAKE) --no-print-directory -j2 BUILD=build/tsan OPT=-O1 SANITIZE=-fsanitize=thread build/tsan/test/threads build/tsan/test/parallel
	TSAN_OPTIONS=halt_on_error=0:exitcode=66 build/tsan/test/parallel
	TSAN_OPTIONS=halt_on_error=0:exitcode=66 build/tsan/test/threads $(or $(STATES),8 8 1000)

# The kernels need no library, so that they can be tested for another machine than this one.
$(BUILD)/kernels_alone: spec/c/kernels_test.c spec/c/reference.h spec/c/pairs.h spec/c/recurrent_cases.h spec/c/reduction_cases.h spec/c/attention_cases.h spec/c/bf16_cases.h spec/c/int8_cases.h spec/c/dtype_cases.h $(KERNEL_OBJ)
	@echo '  CC   $@'
	@$(CC) $(ALL_CFLAGS) -static -o $@ $< $(KERNEL_OBJ) -lm

test-neon: ## test the kernels for AArch64 under qemu; installs the cross compiler and qemu if they are missing
	$(call install_packages,$(NEON_PACKAGES),$(NEEDS_neon))
	@$(MAKE) --no-print-directory BUILD=build/aarch64 CC=aarch64-linux-gnu-gcc build/aarch64/kernels_alone
	qemu-aarch64 build/aarch64/kernels_alone

# ---- without OpenBLAS ----

NO_BLAS_SPECS := $(foreach name,ops gradcheck numbers products conv recurrent determinism reference golden optim sweep c,spec/$(name)_spec.lua)

test-no-blas: setup-test ## test the build without OpenBLAS, in build/no-blas
	@$(MAKE) --no-print-directory -j2 NO_BLAS=1 BUILD=build/no-blas all c-tests
	@! ldd build/no-blas/marea | grep -i blas
	@MAREA_BUILD=build/no-blas $(BUSTED) $(or $(SPECS),$(NO_BLAS_SPECS))

# A program of one network, whole: of the library it has what it calls, and no other is needed where it runs. For another
# processor: CC is the compiler, RUNNER_BUILD a folder for what it makes, RUNNER_LIBS has that processor's libraries.
RUNNER ?= build/runner
RUNNER_BUILD ?= build/no-blas
RUNNER_LIBS ?= -lprotobuf-c -lz -lm -pthread

runner: ## a program with a network inside, which needs no library: MODEL=model.onnx; it is RUNNER=build/runner
	@[ -f $(call q,$(MODEL)) ] || { echo 'make runner MODEL=model.onnx: no such file: '$(call q,$(MODEL)) >&2; exit 1; }
	@$(MAKE) --no-print-directory -j2 NO_BLAS=1 BUILD=$(RUNNER_BUILD) NEEDS_library='$(NEEDS_compiler)' $(RUNNER_BUILD)/libmarea.a
	@mkdir -p $(dir $(RUNNER))
	@echo '  CC   $(RUNNER)'
	@$(CC) $(ALL_CFLAGS) -DMODEL=$(call q,"$(MODEL)") -s -static -o $(call q,$(RUNNER)) examples/runner/runner.c \
	  $(RUNNER_BUILD)/libmarea.a -Wl,--gc-sections $(RUNNER_LIBS)

test-runner: setup ## programs with a network inside, for this processor and for AArch64 under qemu, beside `marea run`
	$(call install_packages,$(NEON_PACKAGES),$(NEEDS_neon))
	@$(MAKE) --no-print-directory -j2 all
	@MAKE=$(call q,$(MAKE)) sh spec/runner.sh

ulp: $(BUILD)/ulp ## the error of the f32 functions on all 2^32 arguments, on every instruction set; takes 40 minutes
	$(BUILD)/ulp

$(BUILD)/ulp: spec/c/ulp.c spec/c/reference.h $(KERNEL_OBJ)
	@echo '  CC   $@'
	@$(CC) $(ALL_CFLAGS) -o $@ $< $(KERNEL_OBJ) -lm

# ---- measuring ----

bench: setup all $(BUILD)/bench/machine $(BUILD)/bench/launch ## measure beside the machine's limits and the peers that are installed; GROUPS="step conv" for some
	@if echo '#include <dnnl.h>' | $(CC) -E - >/dev/null 2>&1; then $(MAKE) --no-print-directory $(BUILD)/bench/onednn; fi
	@env -u OPENBLAS_CORETYPE $(PROGRAM) bench/run.lua $(GROUPS)

bench-peers: ## install what `make bench` compares with: by pip today's PyTorch, Keras, JAX, ONNX Runtime; Debian's PyTorch, oneDNN
	$(call install_packages,$(PEER_PACKAGES))
	@mkdir -p $(BUILD)/bench
	@PYTHON=$(if $(filter file,$(origin PYTHON)),python3,$(PYTHON)) sh bench/peers/install.sh $(BUILD)/bench

bench-kernels: setup all $(BUILD)/bench/kernels ## measure the kernels one by one
	@env -u OPENBLAS_CORETYPE $(BUILD)/bench/kernels

$(BUILD)/bench/kernels: bench/kernels.c bench/measure.h $(BUILD)/libmarea.a
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(ALL_CFLAGS) -o $@ $< $(BUILD)/libmarea.a $(LIBS)

$(BUILD)/bench/machine $(BUILD)/bench/launch: $(BUILD)/bench/%: bench/%.c bench/measure.h
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(ALL_CFLAGS) -o $@ $<

$(BUILD)/bench/onednn: bench/peers/onednn.c
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(ALL_CFLAGS) -fopenmp -o $@ $< -ldnnl

interrupts: setup all $(BUILD)/test/interrupts ## 1,000 times Ctrl-C at random moments; needs a machine without other work
	@mkdir -p $(BUILD)/test/interrupted
	@for program in $(PROGRAM) lua5.4; do \
	  env -u OPENBLAS_CORETYPE LUA_PATH='./lua/?.lua;./lua/?/init.lua;;' LUA_CPATH='$(BUILD)/lib/?.so;;' \
	    $(BUILD)/test/interrupts wall 500 $(BUILD)/test/interrupted $$program || exit 1; \
	done

$(BUILD)/test/interrupts: spec/c/interrupts.c
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(ALL_CFLAGS) -o $@ $<

bench-loading: setup all ## train on JPEGs from files and from memory in turns; fails when files take more than 3 % longer
	@env -u OPENBLAS_CORETYPE $(PROGRAM) bench/loading.lua

soak: setup all ## train for 5,000 steps and check that memory stays flat
	env -u OPENBLAS_CORETYPE $(PROGRAM) bench/memory.lua

browser: setup-test all ## the page of examples/lighttpd in Chromium, which is installed if it is missing
	$(call install_packages,$(BROWSER_PACKAGES))
	@env -u OPENBLAS_CORETYPE $(BUSTED) spec/browser.lua

lint: setup-lint ## luacheck, clang-format, layers and forbidden symbols
	luacheck -q lua scripts spec bench examples docs/generate bindings/luajit
	sh spec/lint/lint.sh

# ---- notebooks ----

jupyter: all $(KERNEL)/kernel.json ## install the Jupyter kernel for the user, with what it needs from Debian
	$(call install_packages,$(JUPYTER_PACKAGES))
	$(PYTHON) -m jupyter_client.kernelspecapp install --user --name marea $(KERNEL)

# The whole path of a file as the text of a JSON string, for the shell.
json_path = "$$(realpath -ms $(1) | sed 's/["\\]/\\&/g')"

$(KERNEL)/kernel.json: examples/jupyter/marea_kernel.py
	@mkdir -p $(@D)
	@printf '{"argv": ["%s", "%s", "-f", "{connection_file}"],\n "display_name": "Marea", "language": "lua",\n "env": {"MAREA_PROGRAM": "%s"}}\n' \
	  $(PYTHON) $(call json_path,$<) $(call json_path,$(PROGRAM)) > $@

# ---- installing ----

module: $(MODULE) $(EXTRA_MODULES)

# A place below DESTDIR, for the shell.
at = $(call q,$(DESTDIR)$(1))

install-module: $(MODULE) $(EXTRA_MODULES) ## install only what `require "marea"` needs
	install -d $(call at,$(CMODDIR)/marea) $(call at,$(LUADIR))
	install -m 755 $(MODULE) $(EXTRA_MODULES) $(call at,$(CMODDIR)/marea/)
	rm -rf $(call at,$(LUADIR)/marea) # a file of an older version may hide a folder of this one
	for f in $(LUA_FILES:lua/%=%); do install -D -m 644 lua/$$f $(call at,$(LUADIR))/$$f || exit 1; done

# Puts a file in place with its @PLACES@ filled in. LIBS are not OpenBLAS' static flags, which ask for a Fortran compiler.
sed_text = $(subst |,\|,$(subst &,\&,$(subst \,\\,$(1))))
fill_in = -e $(call q,s|@$(1)@|$(call sed_text,$($(1)))|g)
fill = sed $(foreach place,PREFIX DOCDIR LIBDIR VERSION LIBS LUA_MODULE,$(call fill_in,$(place)))

# Folders of the sources that documents lead to: where they are installed.
DOC_scripts = $(SHAREDIR)/scripts
DOC_lua = $(LUADIR)
DOC_core = $(PREFIX)/include
DOC_bindings = $(PREFIX)/include

install: all types install-module ## install program, module, C library, scripts, documents and examples under PREFIX (DESTDIR is honoured)
	install -d $(call at,$(PREFIX)/bin) $(call at,$(PREFIX)/include) $(call at,$(LIBDIR)/pkgconfig) $(call at,$(MANDIR)/man1)
	install -m 755 $(PROGRAM) $(call at,$(PREFIX)/bin/marea)
	install -m 644 core/marea.h bindings/marea_lua.h $(call at,$(PREFIX)/include/)
	install -D -m 644 bindings/luajit/marea_ffi.lua $(call at,$(LUAJITDIR)/marea_ffi.lua)
	install -m 644 $(BUILD)/libmarea.a $(BUILD)/libmarea_lua.a $(call at,$(LIBDIR)/)
	install -m 755 $(BUILD)/libmarea.so $(call at,$(LIBDIR)/libmarea.so.$(VERSION))
	ln -sf libmarea.so.$(VERSION) $(call at,$(LIBDIR)/libmarea.so.0)
	ln -sf libmarea.so.0 $(call at,$(LIBDIR)/libmarea.so)
	$(fill) core/marea.pc.in > $(call at,$(LIBDIR)/pkgconfig/marea.pc)
	$(fill) bindings/marea-lua.pc.in > $(call at,$(LIBDIR)/pkgconfig/marea-lua.pc)
	$(fill) docs/marea.1 > $(call at,$(MANDIR)/man1/marea.1)
	install -d $(call at,$(SHAREDIR)/scripts/data)
	install -m 644 scripts/*.lua scripts/*.sh $(call at,$(SHAREDIR)/scripts/)
	install -m 644 scripts/data/* $(call at,$(SHAREDIR)/scripts/data/)
	install -D -m 644 $(BUILD)/types/marea.lua $(call at,$(SHAREDIR)/types/marea.lua)
	install -d $(call at,$(DOCDIR)/docs)
	install -m 644 README.md CHANGELOG.md CONTRIBUTING.md LICENSE $(call at,$(DOCDIR)/)
	install -m 644 docs/*.md docs/*.png $(call at,$(DOCDIR)/docs/)
	find examples -type f -not -path '*/__pycache__/*' -exec install -D -m 644 {} $(call at,$(DOCDIR))/{} \;
	$(foreach place,scripts lua core bindings,ln -sfrT $(call at,$(DOC_$(place))) $(call at,$(DOCDIR)/$(place));)

# What install puts, but for the folders that others use too.
INSTALLED = bin/marea include/marea.h include/marea_lua.h share/marea
INSTALLED_LIBS = libmarea.a libmarea_lua.a libmarea.so libmarea.so.0 libmarea.so.$(VERSION) pkgconfig/marea.pc \
                 pkgconfig/marea-lua.pc

uninstall: ## remove what install put there
	for f in $(INSTALLED); do rm -rf $(call at,$(PREFIX))/$$f; done
	for f in $(INSTALLED_LIBS); do rm -f $(call at,$(LIBDIR))/$$f; done
	rm -rf $(call at,$(MANDIR)/man1/marea.1) $(call at,$(CMODDIR)/marea) $(call at,$(LUADIR)/marea) $(call at,$(DOCDIR))
	rm -f $(call at,$(LUAJITDIR)/marea_ffi.lua)

dist: ## build/marea-$(VERSION).tar.gz of what is committed; unpacked, built and tried as those do who have no git
	rm -rf build/dist && mkdir -p build/dist
	git archive --prefix=marea-$(VERSION)/ -o build/marea-$(VERSION).tar.gz HEAD
	tar -xzf build/marea-$(VERSION).tar.gz -C build/dist
	@GIT_DIR=/nowhere $(MAKE) --no-print-directory -j2 -C build/dist/marea-$(VERSION) BUILD=build all
	cd build/dist/marea-$(VERSION) && build/marea scripts/vae.lua --smoke --out build/smoke
	rm -rf build/dist
	@ls -l build/marea-$(VERSION).tar.gz

deb: ## Debian packages in build/deb, of the sources that are committed
	$(call install_packages,$(PACKAGES) $(DEB_PACKAGES))
	rm -rf build/deb && mkdir -p build/deb/marea
	git archive HEAD | tar -x -C build/deb/marea
	cd build/deb/marea && dpkg-buildpackage -us -uc -b
	@ls -l build/deb/*.deb

clean: ## remove everything that was built
	rm -rf build
