/* Linear interpolation: the row and column before each result, and how far it is from there to the next ones. */
static void resize_linear(
    const float *x, float *y, int channels, int height, int width, int out_height, int out_width,
    const uint16_t *rows, const float *down, const uint16_t *columns, const float *right)
{
    for (int c = 0; c < channels; c++, x += height * width)
        for (int i = 0; i < out_height; i++)
            for (int j = 0; j < out_width; j++) {
                const float *p = x + rows[i] * width + columns[j];
                int next = columns[j] + 1 < width, below = rows[i] + 1 < height ? width : 0;
                float left = 1 - right[j], up = 1 - down[i];
                *y++ = left * up * p[0] + right[j] * up * p[next] + left * down[i] * p[below]
                    + right[j] * down[i] * p[below + next];
            }
}
