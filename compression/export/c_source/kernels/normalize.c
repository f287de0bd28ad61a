/* Normalization of each row, with a factor and a summand for each @WHAT@; y may be x. */
static void @NAME@(
    const float *x, float *y, int rows, int columns, const float *scale, const float *shift, const float *epsilon)
{
    for (int row = 0; row < rows; row++, x += columns, y += columns) {
        float mean = 0, variance = 0;
        for (int i = 0; i < columns; i++)
            mean += x[i];
        mean /= (float)columns;
        for (int i = 0; i < columns; i++)
            variance += (x[i] - mean) * (x[i] - mean);
        float factor = 1 / sqrtf(variance / (float)columns + *epsilon);
        for (int i = 0; i < columns; i++)
            y[i] = (x[i] - mean) * factor * scale[@PLACE@] + shift[@PLACE@];
    }
}
