/* A block of four dimensions, and the distances of its elements in two arrangements. */
typedef struct { int32_t size[4], from[4], to[4]; } arrangement;
