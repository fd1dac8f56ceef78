/* The operators of ONNX that are read, one file a family. Included with OP(name) and,
** for those of the domain ai.onnx.preview.training, TRAINING(name) defined; no include guard on purpose. */

/* math.c */
OP(Abs)
OP(Neg) OP(Sign) OP(Sqrt) OP(Exp) OP(Log) OP(Sin) OP(Cos) OP(Floor) OP(Ceil) OP(Round) OP(Erf) OP(Reciprocal)
    OP(Tan) OP(Asin) OP(Acos) OP(Atan) OP(Sinh) OP(Cosh) OP(Tanh) OP(Asinh) OP(Acosh) OP(Atanh) OP(IsNaN)
        OP(IsInf) OP(Not) OP(Identity) OP(Cast) OP(CastLike) OP(Clip) OP(Add) OP(Sub) OP(Mul) OP(Div) OP(Pow)
            OP(Mod) OP(And) OP(Or) OP(Xor) OP(BitShift) OP(Equal) OP(Less) OP(LessOrEqual) OP(Greater)
                OP(GreaterOrEqual) OP(Where) OP(Max) OP(Min) OP(Sum) OP(Mean) OP(CumSum)
    /* activation.c */
    OP(Relu) OP(LeakyRelu) OP(ThresholdedRelu) OP(PRelu) OP(Elu) OP(Selu) OP(Celu) OP(Sigmoid) OP(HardSigmoid)
        OP(HardSwish) OP(Softplus) OP(Softsign) OP(Shrink) OP(Softmax) OP(LogSoftmax) OP(Hardmax) OP(Gelu)
            OP(Mish)
    /* shape.c */
    OP(Constant) OP(ConstantOfShape) OP(Shape) OP(Size) OP(Reshape) OP(Flatten) OP(Squeeze) OP(Unsqueeze)
        OP(Transpose) OP(Concat) OP(Split) OP(Slice) OP(Expand) OP(Tile) OP(Pad) OP(DepthToSpace)
            OP(SpaceToDepth) OP(Range) OP(EyeLike) OP(Trilu)
    /* linear.c */
    OP(MatMul) OP(Gemm)
    /* conv.c */
    OP(Conv) OP(ConvTranspose) OP(Col2Im)
    /* pool.c */
    OP(MaxPool) OP(AveragePool) OP(LpPool) OP(GlobalAveragePool) OP(GlobalMaxPool) OP(GlobalLpPool)
        OP(MaxUnpool)
    /* norm.c */
    OP(BatchNormalization) OP(InstanceNormalization) OP(LayerNormalization) OP(GroupNormalization)
        OP(MeanVarianceNormalization) OP(LRN) OP(Dropout)
    /* resize.c */
    OP(Resize) OP(Upsample) OP(CenterCropPad)
    /* sample.c */
    OP(GridSample) OP(AffineGrid) OP(RoiAlign) OP(DeformConv)
    /* recurrent.c */
    OP(RNN) OP(GRU) OP(LSTM)
    /* control.c */
    OP(If) OP(Loop) OP(Scan)
    /* sequence.c */
    OP(SequenceEmpty) OP(SequenceConstruct) OP(SequenceInsert) OP(SequenceErase) OP(SequenceAt)
        OP(SequenceLength) OP(ConcatFromSequence) OP(SplitToSequence) OP(SequenceMap) OP(Optional)
            OP(OptionalHasElement) OP(OptionalGetElement)
    /* reduce.c */
    OP(ReduceSum) OP(ReduceMean) OP(ReduceProd) OP(ReduceMax) OP(ReduceMin) OP(ReduceL1) OP(ReduceL2)
        OP(ReduceLogSum) OP(ReduceLogSumExp) OP(ReduceSumSquare) OP(ArgMax) OP(ArgMin)
    /* index.c */
    OP(Gather) OP(GatherElements) OP(GatherND) OP(Scatter) OP(ScatterElements) OP(ScatterND) OP(OneHot)
        OP(NonZero) OP(Compress) OP(TopK) OP(Unique) OP(ReverseSequence)
    /* loss.c */
    OP(NegativeLogLikelihoodLoss) OP(SoftmaxCrossEntropyLoss)
    /* signal.c */
    OP(HannWindow) OP(HammingWindow) OP(BlackmanWindow) OP(MelWeightMatrix) OP(DFT) OP(STFT)
    /* random.c */
    OP(RandomNormal) OP(RandomNormalLike) OP(RandomUniform) OP(RandomUniformLike) OP(Bernoulli)
        OP(Multinomial)
    /* quantize.c */
    OP(QuantizeLinear) OP(DequantizeLinear) OP(DynamicQuantizeLinear) OP(MatMulInteger) OP(QLinearMatMul)
        OP(ConvInteger) OP(QLinearConv)
    /* training.c */
    TRAINING(Adagrad) TRAINING(Adam) TRAINING(Momentum)
    /* einsum.c */
    OP(Einsum)
    /* evaluate.c */
    OP(Det) OP(BitwiseAnd) OP(BitwiseOr) OP(BitwiseXor) OP(BitwiseNot) OP(TfIdfVectorizer)
    /* detect.c */
    OP(NonMaxSuppression)
