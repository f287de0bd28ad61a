/* Mean of multiples of the scale over the middle one of three dimensions, as floats. */
static void mean_u8(const uint8_t *x, float *y, int outer, int middle, int inner, const float *scale, int zero)
{
    for (int o = 0; o < outer; o++, x += middle * inner)
        for (int i = 0; i < inner; i++) {
            int32_t sum = -zero * middle;
            for (int m = 0; m < middle; m++)
                sum += x[m * inner + i];
            *y++ = (float)sum * *scale / (float)middle;
        }
}
