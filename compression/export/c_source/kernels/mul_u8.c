/* Product of a and of b, whose `channels` numbers are each repeated `inner` times, rounded; y may be a. */
static void mul_u8(
    const uint8_t *a, const uint8_t *b, uint8_t *y, int outer, int channels, int inner, const float *scale,
    int zero_a, int zero_b, int zero_y)
{
    for (int o = 0; o < outer; o++)
        for (int c = 0; c < channels; c++)
            for (int i = 0; i < inner; i++) {
                /* volatile: the product is rounded before the zero point is added */
                volatile float product = (float)((*a++ - zero_a) * (b[c] - zero_b)) * *scale;
                *y++ = rounded(product + (float)zero_y, 0);
            }
}
