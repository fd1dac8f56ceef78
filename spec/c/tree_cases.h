/* SPDX-License-Identifier: MIT
** tree_cases.h: files whose values are a tree and which are refused, for io_test.c.
*/

static void test_bad_torch (void) {
  static const struct {
    const char *pickle;
    size_t n;
    const char *why;
  } bad[] = {
#define P(text, why) {text, sizeof(text) - 1, why}
#define VIEW(view, why) P(PICKLE(TENSOR(STORAGE("Float", "K\6"), view)), why)
      P("", "it ends too early"),
      P("\x80\4N.", "protocol 4; only 2"),
      P("(lp0\n.", "not a pickle of protocol 2"),
      P("\x80\2cposix\nsystem\nX\2\0\0\0ls\x85R.", "refused: the file wants 'posix.system'"),
      P("\x80\2c__builtin__\neval\n.", "wants '__builtin__.eval'"),
      P("\x80\2ctorch._utils\n_rebuild_tensor_v3\n.", "wants 'torch._utils._rebuild_tensor_v3'"),
      P("\x80\2ctorch._utils", "ends too early"),
      P("\x80\2(i__builtin__\neval\n.", "opcode 0x69"),
      P("\x80\2N\x81.", "opcode 0x81"),
      P("\x80\2N", "ends too early"),
      P("\x80\2.", "no single value"),
      P("\x80\2NN.", "no single value"),
      P("\x80\2(.", "no single value"),
      P("\x80\2ccollections\nOrderedDict\n.", "no single value"),
      P("\x80\2]ccollections\nOrderedDict\na.", "a name as a value"),
      P("\x80\2t.", "no mark"),
      P("\x80\2\x87.", "too few values"),
      P("\x80\2(\x85.", "a mark in a tuple"),
      P("\x80\2Na.", "too few values"),
      P("\x80\2NNa.", "no list or dict"),
      P("\x80\2(Na.", "no list or dict"),
      P("\x80\2](a.", "a mark as a value"),
      P("\x80\2}(Nu.", "too few values"),
      P("\x80\2}(]Nu.", "a dict with a key that is no text"),
      P("\x80\2h\0.", "a memory of nothing"),
      P("\x80\2q\0.", "nothing to remember"),
      P("\x80\2Nr\xff\xff\xff\x7f.", "a memo that is too large"),
      P("\x80\2j\xff\xff\xff\xff.", "a memory of nothing"),
      P("\x80\2X\xff\xff\xff\xff.", "ends too early"),
      P("\x80\2\x8a\11123456789.", "more than 64 bits"),
      P("\x80\2NQ.", "no storage"),
      P("\x80\2N)R.", "a call of nothing"),
      P("\x80\2NNb.", "attributes of what has none"),
      P("\x80\2ctorch\nFloatStorage\n)R.", "a call of a type"),
      P("\x80\2ctorch._utils\n_rebuild_tensor_v2\n)R.", "a tensor without storage"),
      P("\x80\2ctorch._utils\n_rebuild_parameter\n)R.", "a parameter without tensor"),
      P(PICKLE(TENSOR(STORAGE("Float", "K\7"), "K\0))")), "has 24 bytes, and is to have 7"),
      P(PICKLE(TENSOR(STORAGE("Float", "J\xff\xff\xff\xff"), "K\0))")), "is to have -1"),
      P(PICKLE(TENSOR(STORAGE("Double", "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"), "K\0))")),
        "is to have 9223372036854775807"),
      P(PICKLE(TENSOR(STORAGE("ComplexFloat", "K\1"), "K\0))")), "wants 'torch.ComplexFloatStorage'"),
      VIEW("K\6))", "reaches beyond"),
      VIEW("J\xff\xff\xff\xff))", "reaches beyond"),
      VIEW("K\1K\2K\3\x86K\3K\1\x86", "reaches beyond"),
      VIEW("K\0K\2\x85J\xff\xff\xff\xff\x85", "reaches beyond"),
      VIEW("K\0\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85",
           "reaches beyond"),
      VIEW("K\0J\0\0\0\4\x85K\0\x85", "more than 64 times"),
      VIEW("K\0\x8a\x07\0\0\0\0\0\0\4\x85K\0\x85", "outside"),
      VIEW("K\0K\2\x85)", "other strides than sizes"),
      VIEW("K\0(K\1K\1K\1K\1K\1K\1K\1K\1K\1t)", "no tuple of at most 8"),
      VIEW("K\0N\x85)", "a size that is no integer"),
#undef VIEW
#undef P
  };
  for (int i = 0; i < MAREA_COUNT(bad); i++) refuse(TORCH, torch_file(bad[i].pickle, bad[i].n), bad[i].why);
  refuse(TORCH, LITERAL("\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."), "before 1.6");
  marea_file *f;
  CHECK_OK(marea_file_new(ctx, &f));
  refuse(TORCH, saved_npz(f), "without data.pkl");
  char *deep = malloc(4000), *at = deep + sprintf(deep, "\x80\2");
  for (int i = 0; i < 600; i++) *at++ = ']';
  for (int i = 0; i < 599; i++) *at++ = 'a';
  *at++ = '.';
  refuse(TORCH, torch_file(deep, (size_t)(at - deep)), "nested deeper than 500");
  free(deep);
}

static void test_bad_gguf (void) {
  struct {
    const char *head;
    size_t n;
    const char *why;
  } bad[] = {
#define P(head, why) {head, sizeof(head) - 1, why}
      P("GGUX", "not a GGUF file"),
      P("GGUF" U32("\4"), "version 4"),
      P("GGUF\0\0\0\3", "big-endian"),
      P("GGUF" U32("\3") "\1\0\1\0\0\0\0\0", "more than 65536 tensors"),
      P(HEAD("\0", "\1") "\377\377\377\377\377\377\377\377", "ends too early"),
      P(HEAD("\0", "\1") U64("\1") "a" U32("\15"), "no value has type 13"),
      P(HEAD("\0", "\1") U64("\1") "a" U32("\11") U32("\0") "\377\377\377\377\377\377\377\377",
        "ends too early"),
      P(HEAD("\0", "\1") ALIGNMENT U32("\4") U32("\0"), "general.alignment is no size"),
      P(HEAD("\0", "\1") ALIGNMENT U32("\10") U64("\1") "a", "general.alignment is no size"),
      P(HEAD("\2", "\0") U64("\1") "a" U32("\0") U32("\0") U64("\0") U64("\1") "a" U32("\0") U32("\0") U64("\0"),
        "tensor 'a' is there twice"),
      P(HEAD("\1", "\0") U64("\1") "a" U32("\11"), "tensor 'a' has 9 dimensions; at most 8"),
      P(HEAD("\1", "\0") U64("\1") "a" U32("\1") "\0\0\0\0\0\0\0\200", "a size of tensor 'a' is too large"),
      P(HEAD("\1", "\0") U64("\1") "a" U32("\1") U64("\1") U32("\14") U64("\0"), "not supported: Q4_K ('a')"),
      P(HEAD("\1", "\0") U64("\1") "a" U32("\1") U64("\1") U32("\4") U64("\0"),
        "not supported: type 4 ('a')"),
      P(HEAD("\1", "\0") U64("\1") "a" U32("\1") U64("\1") "\0\0\0\1" U64("\0"), "type 16777216 ('a')"),
      P(HEAD("\1", "\0") U64("\1") "a" U32("\1") U64("\20") U32("\10") U64("\0"),
        "rows of Q8_0 are of blocks"),
      P(HEAD("\1", "\0") U64("\1") "a" U32("\0") U32("\2") U64("\0"), "rows of Q4_0 are of blocks"),
      P(HEAD("\1", "\0") U64("\1") "a" U32("\1") U64("\40") U32("\10") U64("\0"),
        "'a' has 34 bytes at byte 0"),
      P(HEAD("\1", "\0") U64("\1") "a" U32("\1") U64("\1") U32("\0") U64("\100"),
        "'a' has 4 bytes at byte 64"),
      P(HEAD("\1", "\0") U64("\1") "a" U32("\2") "\0\0\0\0\0\0\0\1"
                                                 "\0\0\0\0\0\0\0\1" U32("\0") U64("\0"),
        "shape"),
#undef P
  };
  for (int i = 0; i < MAREA_COUNT(bad); i++) refuse(GGUF, gguf(bad[i].head, bad[i].n, 0), bad[i].why);
  static char deep[20 * 12 + 64] = HEAD("\0", "\1") U64("\1") "a" U32("\11");
  size_t n = 37;
  for (int i = 0; i < 20; i++, n += 12) memcpy(deep + n, U32("\11") U64("\1"), 12);
  refuse(GGUF, gguf(deep, n, 0), "arrays nested deeper than 8");
  static char many[24 + 90 * 54] = HEAD("\132", "\0");
  n = 24;
  for (int i = 0; i < 90; i++) {
    memcpy(many + n, U64("\36") "a name of thirty bytes no more" U32("\0") U32("\14") U64("\0"), 54);
    many[n + 8] = (char)('!' + i);
    n += 54;
  }
  refuse(GGUF, gguf(many, n, 0), "no more', ...)");
}

static void test_bad_t7 (void) {
  struct {
    const char *text;
    size_t n;
    const char *why;
  } bad[] = {
#define P(text, why) {text, sizeof(text) - 1, why}
      P("", "ends too early"),
      P(U32("\11"), "damaged: no kind of value before byte 4"),
      P(U32("\2") "\377\377\377\377x", "ends too early"),
      P(U32("\3") "\377\377\0\0" U32("\0"), "an index that is too large before byte 8"),
      P(U32("\3") "\377\377\377\377" U32("\0"), "an index that is too large"),
      P(T7_TABLE("\1", "\1"), "ends too early"),
      P(T7_TABLE("\1", "\1") U32("\1") "\0\0\0\0\0\0\370\177", "a key that is not a number"),
      P(T7_TABLE("\1", "\1") T7_TEXT("\2", "id") U32("\10"), "a function, which is code, is kept as 'id'"),
      P(U32("\6"), "there is a function, which is code, before byte 4"),
      P(U32("\7"), "there is a function"),
      P("4\n1\n", "in ASCII"),
      P(U32("\0") "x", "there are 1 bytes behind its value"),
      P(T7_CLASS("\1", "\10", "tds.Hash") U32("\1"), "class 'tds.Hash' has a format of its own"),
      P(T7_CLASS("\1", "\10", "tds.Hash") U32("\3") U32("\1"), "ends too early"),
      P(T7_STORAGE("\1", "\1") "abc", "a storage of 1 elements, with 3 bytes behind it"),
      P(T7_TENSOR("\1", "\1", "\1", "\1", U32("\0")), "beyond storage 'nil' of 0 elements"),
      P(T7_TENSOR("\1", "\1", "\1", "\1", U32("\5")), "a tensor without storage"),
      P(T7_TENSOR("\1", "\1", "\1", "\1", T7_TENSOR("\2", "\1", "\1", "\1", "")), "a tensor without storage"),
      P(T7_TENSOR("\1", "\1", "\1", "\1", T7_CLASS("\2", "\23", "torch.DoubleStorage") U64("\1") "abcdefgh"),
        "with a storage of another type"),
      P(T7_TENSOR("\1", "\2", "\1", "\1", T7_STORAGE("\2", "\1") "abcd"), "beyond storage 'of the file' of 1"),
      P(T7_TENSOR("\1", "\1", "\1", "\0", T7_STORAGE("\2", "\1") "abcd"), "beyond storage 'of the file' of 1"),
      P(T7_CLASS("\1", "\21", "torch.FloatTensor") U32("\1") U64("\1") U64("\1") "\0\0\0\0\0\0\0\200" U32("\0"),
        "a tensor without place"),
      P(T7_CLASS("\1", "\21", "torch.FloatTensor") U32("\11"), "a tensor of 9 dimensions; at most 8"),
      P(T7_TENSOR("\1", "\1", "\1", "\1", T7_STORAGE("\2", "\1") "abcd") "z", "there are 1 bytes"),
      P(T7_TABLE("\1", "\1") T7_STORAGE("\2", "\1") "abcd" T7_CLASS("\3", "\1", "X") U32("\3") U32("\2"),
        "an object without table"),
      P(T7_CLASS("\1", "\21", "torch.FloatTensor") U32("\2") "\0\0\0\1\0\0\0\0" U64("\1") U64("\0") U64("\0")
            U64("\1") T7_STORAGE("\2", "\1") "abcd", "more than 64 times the file's bytes"),
#undef P
  };
  for (int i = 0; i < MAREA_COUNT(bad); i++) refuse(T7, literal(bad[i].text, bad[i].n), bad[i].why);
  bytes deep = {malloc(12 * 512), 0};
  for (int i = 1; i <= 512; i++, deep.n += 12) { /* a table is the key of the one around it */
    memcpy(deep.p + deep.n, U32("\3") "\0\0\0\0" U32("\1"), 12);
    memcpy(deep.p + deep.n + 4, &i, 4);
  }
  refuse(T7, deep, "nested deeper than 500");
}
