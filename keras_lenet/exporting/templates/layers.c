/* Puts an image on a larger field of one value. */
static void pad(const float *in, int height, int width, int maps, int top,
                int left, int out_height, int out_width, float value,
                float *out)
{
    for (int i = 0; i < out_height * out_width * maps; i++)
        out[i] = value;
    for (int row = 0; row < height; row++)
        for (int i = 0; i < width * maps; i++)
            out[((row + top) * out_width + left) * maps + i] =
                in[row * width * maps + i];
}


/* Makes pixels smaller numbers. */
static void scale(float *x, int count, float factor, float offset)
{
    for (int i = 0; i < count; i++)
        x[i] = factor * x[i] + offset;
}


/* Each output pixel is a weighted sum of rows x columns input pixels. */
static void convolve(const float *in, int height, int width, int maps_in,
                     int rows, int columns, int maps, const float *kernel,
                     const float *bias, float *out)
{
    for (int y = 0; y <= height - rows; y++)
        for (int x = 0; x <= width - columns; x++) {
            const float *weight = kernel;
            for (int map = 0; map < maps; map++)
                out[map] = bias[map];
            for (int row = 0; row < rows; row++)
                for (int column = 0; column < columns; column++)
                    for (int from = 0; from < maps_in; from++) {
                        float pixel = in[((y + row) * width + x + column) *
                                             maps_in + from];
                        for (int map = 0; map < maps; map++)
                            out[map] += pixel * *weight++;
                    }
            out += maps;
        }
}


/* Keeps the largest of each 2x2 pixels. */
static void max_pool(const float *in, int height, int width, int maps,
                     float *out)
{
    for (int y = 0; y + 1 < height; y += 2)
        for (int x = 0; x + 1 < width; x += 2)
            for (int map = 0; map < maps; map++) {
                const float *first = in + (y * width + x) * maps + map;
                const float *below = first + width * maps;
                float upper = fmaxf(first[0], first[maps]);
                *out++ = fmaxf(upper, fmaxf(below[0], below[maps]));
            }
}


/* Sums each 2x2 pixels, times a coefficient of the map, plus its bias. */
static void subsample(const float *in, int height, int width, int maps,
                      const float *coefficients, const float *bias, float *out)
{
    for (int y = 0; y + 1 < height; y += 2)
        for (int x = 0; x + 1 < width; x += 2)
            for (int map = 0; map < maps; map++) {
                const float *first = in + (y * width + x) * maps + map;
                const float *below = first + width * maps;
                float sum = first[0] + first[maps] + below[0] + below[maps];
                *out++ = coefficients[map] * sum + bias[map];
            }
}


/* Each output is a weighted sum of all inputs. */
static void dense(const float *in, int inputs, int units, const float *kernel,
                  const float *bias, float *out)
{
    for (int unit = 0; unit < units; unit++)
        out[unit] = bias[unit];
    for (int i = 0; i < inputs; i++)
        for (int unit = 0; unit < units; unit++)
            out[unit] += in[i] * kernel[i * units + unit];
}


/* The closer to a class' code, the larger its output. */
static void distances(const float *in, int size, int classes,
                      const float *codes, float *out)
{
    for (int class = 0; class < classes; class++) {
        float sum = 0.0f;
        for (int i = 0; i < size; i++) {
            float difference = in[i] - codes[class * size + i];
            sum += difference * difference;
        }
        out[class] = -sum;
    }
}


/* An activation function: nothing below 0. */
static void relu(float *x, int count)
{
    for (int i = 0; i < count; i++)
        x[i] = fmaxf(x[i], 0.0f);
}


/* An activation function: from -1.7159 to 1.7159. */
static void scaled_tanh(float *x, int count)
{
    for (int i = 0; i < count; i++)
        x[i] = 1.7159f * tanhf(2.0f / 3.0f * x[i]);
}


/* Turns outputs into probabilities, which sum to 1. */
static void softmax(float *x, int count)
{
    float largest = x[0], sum = 0.0f;
    for (int i = 1; i < count; i++)
        largest = fmaxf(largest, x[i]);
    for (int i = 0; i < count; i++) {
        x[i] = expf(x[i] - largest);
        sum += x[i];
    }
    for (int i = 0; i < count; i++)
        x[i] /= sum;
}
