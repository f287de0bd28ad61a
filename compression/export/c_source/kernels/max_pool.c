/* Maximum of each window; y may be x if there is no padding. */
static void max_pool@SUFFIX@(const @TYPE@ *x, @TYPE@ *y, const window *s)
{
    for (int c = 0; c < s->outputs; c++, x += s->height * s->width)
        for (int row = 0; row < s->out_height; row++)
            for (int column = 0; column < s->out_width; column++) {
                @TYPE@ largest = @LEAST@;
                for (int i = 0; i < s->kernel_height; i++) {
                    int line = row * s->stride_height - s->top + i * s->dilation_height;
                    if (line < 0 || line >= s->height)
                        continue;
                    for (int j = 0; j < s->kernel_width; j++) {
                        int at = column * s->stride_width - s->left + j * s->dilation_width;
                        if (at >= 0 && at < s->width && x[line * s->width + at] > largest)
                            largest = x[line * s->width + at];
                    }
                }
                *y++ = largest;
            }
}
