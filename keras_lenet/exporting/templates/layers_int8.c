/* For all layers: a * b / 2^31, rounded to the nearest integer. */
static int32_t product(int32_t a, int32_t b)
{
    int64_t doubled = (int64_t)a * b;
    int64_t nudge = doubled >= 0 ? 1L << 30 : 1 - (1L << 30);

    if (a == INT32_MIN && b == INT32_MIN)
        return INT32_MAX;
    return (int32_t)((doubled + nudge) / ((int64_t)1 << 31));
}


/* For all layers: x / 2^bits, rounded to the nearest integer. */
static int32_t shift_right(int32_t x, int bits)
{
    int64_t power = (int64_t)1 << bits;
    int64_t rest = ((int64_t)x % power + power) % power;
    int64_t half = (power - 1) / 2 + (x < 0);

    return (int32_t)(((int64_t)x - rest) / power + (rest > half));
}


/* For all layers: the output for a sum, multiplier * 2^(shift - 31) * sum. */
static int8_t rescale(int32_t sum, int32_t multiplier, int shift, int zero,
                      int least)
{
    int left = shift > 0 ? shift : 0;
    int32_t x = product((int32_t)(sum * ((int64_t)1 << left)), multiplier);

    x = shift_right(x, left - shift) + zero;
    if (x < least)
        x = least;
    return (int8_t)(x > 127 ? 127 : x);
}


/* Puts an image on a larger field of one value. */
static void pad(const int8_t *in, int height, int width, int maps, int top,
                int left, int out_height, int out_width, int value,
                int8_t *out)
{
    for (int i = 0; i < out_height * out_width * maps; i++)
        out[i] = (int8_t)value;
    for (int row = 0; row < height; row++)
        for (int i = 0; i < width * maps; i++)
            out[((row + top) * out_width + left) * maps + i] =
                in[row * width * maps + i];
}


/* Each output pixel is a weighted sum of rows x columns input pixels. */
static void convolve(const int8_t *in, int height, int width, int maps_in,
                     int rows, int columns, int maps, const int8_t *kernel,
                     const int32_t *bias, const int32_t *multiplier,
                     const int8_t *shift, int zero_in, int zero_out, int least,
                     int8_t *out)
{
    for (int y = 0; y <= height - rows; y++)
        for (int x = 0; x <= width - columns; x++) {
            const int8_t *weight = kernel;
            for (int map = 0; map < maps; map++) {
                int32_t sum = bias[map];
                for (int row = 0; row < rows; row++) {
                    const int8_t *pixel =
                        in + ((y + row) * width + x) * maps_in;
                    for (int i = 0; i < columns * maps_in; i++)
                        sum += (pixel[i] - zero_in) * *weight++;
                }
                *out++ = rescale(sum, multiplier[map], shift[map], zero_out,
                                 least);
            }
        }
}


/* Keeps the largest of each 2x2 pixels. */
static void max_pool(const int8_t *in, int height, int width, int maps,
                     int8_t *out)
{
    for (int y = 0; y + 1 < height; y += 2)
        for (int x = 0; x + 1 < width; x += 2)
            for (int map = 0; map < maps; map++) {
                const int8_t *first = in + (y * width + x) * maps + map;
                const int8_t *below = first + width * maps;
                int8_t upper = first[0] > first[maps] ? first[0] : first[maps];
                int8_t lower = below[0] > below[maps] ? below[0] : below[maps];
                *out++ = upper > lower ? upper : lower;
            }
}


/* Each output is a weighted sum of all inputs. */
static void dense(const int8_t *in, int inputs, int units,
                  const int8_t *kernel, const int32_t *bias,
                  const int32_t *multiplier, const int8_t *shift, int zero_in,
                  int zero_out, int least, int8_t *out)
{
    for (int unit = 0; unit < units; unit++) {
        int32_t sum = bias[unit];
        for (int i = 0; i < inputs; i++)
            sum += (in[i] - zero_in) * *kernel++;
        *out++ = rescale(sum, multiplier[unit], shift[unit], zero_out, least);
    }
}


/* For softmax: 1 / (1 + x) for x from 0 to 1, all times 2^31.
 *
 * This is Newton's iteration y += y * (1 - d * y) for 1 / d, where d is
 * (1 + x) / 2. It starts at 48 / 17 - 32 / 17 * d. y is y / 2^29.
 */
static int32_t reciprocal(int32_t x)
{
    int32_t d = (int32_t)(((int64_t)x + INT32_MAX + 1) / 2);
    int32_t y = 1515870810 + product(d, -1010580540);

    for (int i = 0; i < 3; i++) {
        int32_t step = product(y, (1L << 29) - product(d, y));
        y += step * 4;
    }
    return y > INT32_MAX / 2 ? INT32_MAX : y * 2;
}


/* Turns outputs into probabilities, which are (value + 128) / 256.
 *
 * exps: exp(-difference) times 2^31, for each difference to the largest value.
 */
static void softmax(const int8_t *in, int count, const int32_t *exps,
                    int8_t *out)
{
    int8_t largest = in[0];
    int32_t sum = 0, factor;
    int zeros = 0;

    for (int i = 1; i < count; i++)
        if (in[i] > largest)
            largest = in[i];
    for (int i = 0; i < count; i++)
        sum += shift_right(exps[largest - in[i]], 12);
    while (((uint32_t)sum << zeros & 0x80000000u) == 0)
        zeros++;
    factor = reciprocal((int32_t)(((uint32_t)sum << zeros) - 0x80000000u));
    for (int i = 0; i < count; i++) {
        int32_t value = product(factor, exps[largest - in[i]]);
        value = shift_right(value, 12 - zeros + 31 - 8) - 128;
        out[i] = (int8_t)(value > 127 ? 127 : value);
    }
}
