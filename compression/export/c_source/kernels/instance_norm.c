/* Normalization of each channel, with a factor and a summand; y may be x. */
static void instance_norm(
    const float *x, float *y, int channels, int inner, const float *scale, const float *shift, const float *epsilon)
{
    for (int c = 0; c < channels; c++, x += inner, y += inner) {
        float mean = 0, variance = 0;
        for (int i = 0; i < inner; i++)
            mean += x[i];
        mean /= (float)inner;
        for (int i = 0; i < inner; i++)
            variance += (x[i] - mean) * (x[i] - mean);
        float factor = scale[c] / sqrtf(variance / (float)inner + *epsilon);
        for (int i = 0; i < inner; i++)
            y[i] = (x[i] - mean) * factor + shift[c];
    }
}
