/* An elementwise function; y may be x. */
static void @NAME@(const float *x, float *y, int count@PARAMETERS@)
{
    for (int i = 0; i < count; i++) {
        float v = x[i];
        y[i] = @EXPRESSION@;
    }
}
