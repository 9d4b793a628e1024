from keras_lenet.cli import main

if __name__ == "__main__":
    main()
