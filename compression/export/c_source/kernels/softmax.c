/* Softmax of each row; y may be x. */
static void softmax(const float *x, float *y, int rows, int columns)
{
    for (int row = 0; row < rows; row++, x += columns, y += columns) {
        float largest = x[0], sum = 0;
        for (int i = 1; i < columns; i++)
            largest = x[i] > largest ? x[i] : largest;
        for (int i = 0; i < columns; i++)
            sum += y[i] = expf(x[i] - largest);
        for (int i = 0; i < columns; i++)
            y[i] /= sum;
    }
}
