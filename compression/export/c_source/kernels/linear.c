/* Rows times a matrix of floats (outputs, depth), limited to [low, high]. */
static void linear@SUFFIX@(
    const float *x, float *y, int rows, int depth, int outputs, @PARAMETERS@, const float *bias, float low, float high)
{
    for (int row = 0; row < rows; row++, x += depth) {
        const @TYPE@ *weights = w;
        for (int o = 0; o < outputs; o++, weights += depth) {
            float sums[4] = {0, 0, 0, 0};
            for (int k = 0; k < 4; k++) /* four sums of every fourth product: less is lost in rounding */
                for (int j = k; j < depth; j += 4)
                    sums[k] += @VALUE@ * x[j];
            float sum = (sums[0] + sums[1] + (sums[2] + sums[3]))@SCALED@ + bias[o];
            *y++ = sum < low ? low : sum > high ? high : sum;
        }
    }
}
