/* SPDX-License-Identifier: MIT
** model.h: a loaded ONNX model.
*/
#ifndef MAREA_ONNX_MODEL_H
#define MAREA_ONNX_MODEL_H

#include "node.h"

/* A graph of the file: the model's own, or the body of a branch or loop. */
struct onnx_graph {
  Marea__GraphProto *proto;
  onnx_graph *next;   /* bodies that have been opened, of one model */
  const void *opened; /* the bytes that it came from */
  const char **names; /* of its values, sorted */
  int *last;          /* by name: the last node that reads it; n_node: it is a result */
  int n_names;
  marea_tensor **weights; /* by initializer */
};

/* The values of a graph that runs. Names that are not its own are looked up outside. */
struct onnx_scope {
  onnx_scope *outer;
  struct marea_graph *model;
  onnx_graph *graph;
  onnx_value **values; /* by name */
};

typedef struct onnx_program { /* for inputs of given shapes */
  marea_program *program;
  marea_layout *inputs;
  marea_tensor **values;  /* by input: the one that it was made for (ONNX_BY_SMALL); NULL: any */
  uint64_t used, changes; /* of the weights, when it was made */
} onnx_program;
#define ONNX_MOST_PROGRAMS 8

/* What the shapes inside of a graph, and the ways through it, depend on: found out by the first runs. */
enum {
  ONNX_BY_SHAPES,
  ONNX_BY_SMALL /* and on the values of small inputs of integers: a sampling rate */,
  ONNX_BY_VALUES
};
#define ONNX_SMALL 16 /* elements */

struct marea_graph {
  marea_context *ctx;
  Marea__ModelProto *proto; /* of all copies */
  int *copies;              /* how many there are */
  char *folder;             /* of the file, with a slash; external tensors are read from nowhere else */
  int version;              /* of ONNX's own operator set */
  onnx_graph *main;         /* ... and the bodies behind it */
  int n_in, n_out;          /* those of the inputs that no initializer stands for */
  int *inputs;              /* their places in proto->graph->input */
  int depends;              /* ONNX_BY_SHAPES, ...; ONNX_BY_VALUES: it runs without a program */
  onnx_program programs[ONNX_MOST_PROGRAMS];
  uint64_t runs;
};

extern ProtobufCAllocator marea_onnx_allocator (marea_context *ctx);
/* One that notes whether memory ran out; what it gave may be freed by the other. */
typedef struct onnx_memory {
  marea_context *ctx;
  bool ran_out;
} onnx_memory;
ProtobufCAllocator marea_onnx_noting (onnx_memory *m);

extern const Marea__NodeProto marea_onnx_whole; /* stands for a graph in messages */

/* tensor.c: *out := the tensor of a file, its elements in raw form, in lists or in another file of the folder */
marea_status marea_onnx_read_tensor (marea_context *ctx, const char *folder, const Marea__TensorProto *t,
                                     marea_tensor **out);

/* graph.c */
int marea_onnx_by_name (const void *a,
                        const void *b); /* order of texts, for qsort and bsearch of pointers to them */
marea_status marea_onnx_open_graph (marea_graph *g, Marea__GraphProto *proto, const void *from,
                                    onnx_graph **out);
/* The model's own graph once more, with copies of the weights. */
marea_status marea_onnx_copy_graph (marea_graph *g, const onnx_graph *of, onnx_graph **out);
void marea_onnx_close_graph (marea_graph *g, onnx_graph *graph);
/* Walks over the nodes with inputs in[0..n_in-1], by the names of `names`; out[] in the order of the graph's outputs. */
marea_status marea_onnx_walk (marea_emitter *e, marea_graph *model, onnx_graph *graph, onnx_scope *outer,
                              int n_in, onnx_value *const *in, const int *places, int n_out,
                              onnx_value **out);

#endif
