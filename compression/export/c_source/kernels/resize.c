/* The nearest pixel, in the row and column of each result. */
static void resize@SUFFIX@(
    const @TYPE@ *x, @TYPE@ *y, int channels, int height, int width, int out_height, int out_width,
    const uint16_t *rows, const uint16_t *columns)
{
    for (int c = 0; c < channels; c++, x += height * width)
        for (int i = 0; i < out_height; i++)
            for (int j = 0; j < out_width; j++)
                *y++ = x[rows[i] * width + columns[j]];
}
