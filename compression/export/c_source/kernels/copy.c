/* A copy of a block from one arrangement to another. */
static void copy@SUFFIX@(const @TYPE@ *x, @TYPE@ *y, const arrangement *s)
{
    for (int a = 0; a < s->size[0]; a++)
        for (int b = 0; b < s->size[1]; b++)
            for (int c = 0; c < s->size[2]; c++)
                for (int d = 0; d < s->size[3]; d++)
                    y[a * s->to[0] + b * s->to[1] + c * s->to[2] + d * s->to[3]] =
                        x[a * s->from[0] + b * s->from[1] + c * s->from[2] + d * s->from[3]];
}
