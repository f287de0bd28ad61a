/* Sum of a and of b, whose `channels` numbers are each repeated `inner` times, rounded; y may be a.
   `p` holds the factors of a and b, and what is added. */
static void @NAME@(
    const uint8_t *a, const uint8_t *b, uint8_t *y, int outer, int channels, int inner, const float *p)
{
    for (int o = 0; o < outer; o++)
        for (int c = 0; c < channels; c++)
            for (int i = 0; i < inner; i++)
                *y++ = rounded(@EXPRESSION@, 0);
}
