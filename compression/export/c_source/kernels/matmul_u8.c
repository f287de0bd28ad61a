/* Products of matrices of integers: sums in 32 bits, rounded to uint8_t. */
static void matmul_u8(
    const uint8_t *a, const uint8_t *b, uint8_t *y, int count, int rows, int depth, int columns,
    const float *factor, int zero_a, int zero_b, int zero_y)
{
    for (int n = 0; n < count; n++, b += depth * columns)
        for (int i = 0; i < rows; i++, a += depth)
            for (int j = 0; j < columns; j++) {
                int32_t sum = 0;
                for (int k = 0; k < depth; k++)
                    sum += (a[k] - zero_a) * (b[k * columns + j] - zero_b);
                *y++ = rounded((float)sum * *factor, zero_y);
            }
}
