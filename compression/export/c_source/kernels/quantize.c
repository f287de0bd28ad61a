/* Floats rounded to multiples of the scale; y may be x. */
static void quantize(const float *x, uint8_t *y, int count, const float *scale, int zero)
{
    for (int i = 0; i < count; i++)
        y[i] = rounded(x[i] / *scale, zero);
}
