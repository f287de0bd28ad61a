/* Products of matrices (rows, depth) and (depth, columns). */
static void matmul(const float *a, const float *b, float *y, int matrices, int rows, int depth, int columns)
{
    for (int m = 0; m < matrices; m++, b += depth * columns)
        for (int row = 0; row < rows; row++, a += depth)
            for (int column = 0; column < columns; column++) {
                float sum = 0;
                for (int k = 0; k < depth; k++)
                    sum += a[k] * b[k * columns + column];
                *y++ = sum;
            }
}
