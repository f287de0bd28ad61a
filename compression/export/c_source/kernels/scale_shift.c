/* A factor and a summand for each channel of `inner` numbers; y may be x. */
static void scale_shift(
    const float *x, float *y, int channels, int inner, const float *scale, const float *shift)
{
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < inner; i++)
            *y++ = *x++ * scale[c] + shift[c];
}
