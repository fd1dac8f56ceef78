/* SPDX-License-Identifier: MIT
** handlers.c: the table of ONNX operators, made from LIST.h.
*/
#include "node.h"

static const struct {
  const char *domain, *name;
  onnx_handler *run;
} table[] = {
#define OP(name) {"", #name, marea_onnx_##name},
#define TRAINING(name) {"ai.onnx.preview.training", #name, marea_onnx_##name},
#include "LIST.h"
#undef TRAINING
#undef OP
};

onnx_handler *marea_onnx_find (const char *domain, const char *name) {
  if (strcmp(domain, "ai.onnx") == 0) domain = "";
  for (int i = 0; i < MAREA_COUNT(table); i++)
    if (strcmp(table[i].name, name) == 0 && strcmp(table[i].domain, domain) == 0) return table[i].run;
  return NULL;
}
