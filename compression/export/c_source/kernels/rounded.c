/* The nearest integer, of two the even one, as uint8_t with a zero point. */
static uint8_t rounded(float value, int zero)
{
    union { float value; int32_t bits; } number;
    float low = (float)-zero, high = (float)(255 - zero);
    value = value < low ? low : value;
    value = value > high ? high : value;
    number.value = value + 12582912.0f; /* 1.5 * 2^23: the fraction is rounded away */
    return (uint8_t)(number.bits - 0x4B400000 + zero);
}
