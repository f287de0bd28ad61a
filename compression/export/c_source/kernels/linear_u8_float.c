/* Rows of integers times a matrix (outputs, depth): sums in 32 bits, as floats. */
static void linear_u8_float(
    const uint8_t *x, float *y, int rows, int depth, int outputs, const int8_t *w, const int32_t *bias,
    const float *scale, int zero_x)
{
    for (int row = 0; row < rows; row++, x += depth) {
        const int8_t *weights = w;
        for (int o = 0; o < outputs; o++, weights += depth) {
            int32_t sum = bias[o];
            for (int j = 0; j < depth; j++)
                sum += weights[j] * (x[j] - zero_x);
            *y++ = (float)sum * scale[o];
        }
    }
}
