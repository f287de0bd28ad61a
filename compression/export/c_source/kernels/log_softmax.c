/* Logarithm of the softmax of each row; y may be x. */
static void log_softmax(const float *x, float *y, int rows, int columns)
{
    for (int row = 0; row < rows; row++, x += columns, y += columns) {
        float largest = x[0], sum = 0;
        for (int i = 1; i < columns; i++)
            largest = x[i] > largest ? x[i] : largest;
        for (int i = 0; i < columns; i++)
            sum += expf(x[i] - largest);
        sum = logf(sum);
        for (int i = 0; i < columns; i++)
            y[i] = x[i] - largest - sum;
    }
}
