/* Multiples of the scale as floats; y may be x. */
static void dequantize(const uint8_t *x, float *y, int count, const float *scale, int zero)
{
    for (int i = count - 1; i >= 0; i--)
        y[i] = (float)(x[i] - zero) * *scale;
}
