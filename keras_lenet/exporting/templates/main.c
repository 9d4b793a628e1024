#include <stdio.h>

#include "lenet5.h"

int main(void)
{
    static uint8_t image[LENET5_PIXELS];
    static float probabilities[LENET5_CLASSES];

    while (fread(image, sizeof image, 1, stdin) == 1) {
        lenet5_predict(image, probabilities);
        fwrite(probabilities, sizeof probabilities, 1, stdout);
    }
    return 0;
}
