/* Softmax of each row, rounded; y may be x. `exponentials` are those of differences from the largest number. */
static void softmax_u8(
    const uint8_t *x, uint8_t *y, int rows, int columns, const float *exponentials, const float *factor, int zero)
{
    for (int row = 0; row < rows; row++, x += columns, y += columns) {
        int largest = 0;
        float sum = 0;
        for (int i = 0; i < columns; i++)
            largest = x[i] > largest ? x[i] : largest;
        const float *table = exponentials + 255 - largest;
        for (int i = 0; i < columns; i++)
            sum += table[x[i]];
        for (int i = 0; i < columns; i++)
            y[i] = rounded(table[x[i]] * *factor / sum, zero);
    }
}
