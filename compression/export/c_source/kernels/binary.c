/* An elementwise function of a and of b, whose `channels` numbers are each repeated `inner` times; y may be a. */
static void @NAME@(const float *a, const float *b, float *y, int outer, int channels, int inner)
{
    for (int o = 0; o < outer; o++)
        for (int c = 0; c < channels; c++)
            for (int i = 0; i < inner; i++, a++)
                *y++ = @EXPRESSION@;
}
