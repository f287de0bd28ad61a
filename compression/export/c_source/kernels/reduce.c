/* @WHAT@ over the middle one of three dimensions; y may be x. */
static void @NAME@(const @TYPE@ *x, @TYPE@ *y, int outer, int middle, int inner)
{
    for (int o = 0; o < outer; o++, x += middle * inner)
        for (int i = 0; i < inner; i++) {
            @TYPE@ result = x[i];
            for (int m = 1; m < middle; m++) {
                @TYPE@ next = x[m * inner + i];
                result = @STEP@;
            }
            *y++ = result@END@;
        }
}
