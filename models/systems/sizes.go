package systems

import (
	"github.com/gouache-ml/gouache/models/clip"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/dvae"
	"github.com/gouache-ml/gouache/models/nn"
)

// Sizes are the configurations of a system's three models; one without a contrastive
// model leaves CLIP empty.
type Sizes struct {
	DVAE  dvae.Config
	Prior dalle.Config
	CLIP  clip.Config
	// Precision is the prior's, as ir.ParsePrecision reads it; "" is fp32.
	Precision string
}

// Demo is 32x32 images of 8x8 tokens.
var Demo = Sizes{
	DVAE: dvae.Config{
		ImageSize: 32, Width: 32, Groups: 3, BlocksPerGroup: 1, Stem: 5,
		Codebook: 256, CodeDim: 64, Batch: 32, CodeBatch: 32,
		Optimizer: nn.AdamW{Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Decay: 1e-4},
		CodeStd:   1, Gain: 0.3, MinLogScale: -1, UsageWeight: 0.25,
	},
	Prior: dalle.Config{
		TextLen: 24, TextVocab: 512, GridW: 8, GridH: 8, ImageVocab: 256,
		Dim: 128, Heads: 4, Layers: 6, MLP: 2, Kernel: 5,
		Batch: 16, SampleBatch: 32,
		Optimizer: priorOptimizer,
	},
	CLIP: clip.Config{
		ImageSize: 32, Patch: 8, ImageDim: 128, ImageHeads: 4, Stem: 32,
		TextLen: 16, TextVocab: 512, TextDim: 128, TextHeads: 4,
		Layers: 3, MLP: 2, Embed: 128, Batch: 32, EmbedBatch: 32,
		Optimizer: clipOptimizer,
	},
}

// Deep is demo's pictures under a transformer of 48 narrow layers, without a contrastive
// model: what becomes of gradients on a long way in 16 bits; see tests/precision.
var Deep = Sizes{
	DVAE: Demo.DVAE,
	Prior: dalle.Config{
		TextLen: 32, TextVocab: 512, GridW: 8, GridH: 8, ImageVocab: 256,
		Dim: 64, Heads: 2, Layers: 48, Kernel: 5,
		Batch: 16, SampleBatch: 16,
		Optimizer: priorOptimizer,
	},
	Precision: "paper",
}

// Emoji is 64x64 images of 16x16 tokens.
var Emoji = Sizes{
	DVAE: dvae.Config{
		ImageSize: 64, Width: 64, Groups: 3, BlocksPerGroup: 2, Stem: 7,
		Codebook: 512, CodeDim: 128, Batch: 32, CodeBatch: 32,
		Optimizer: dvaeOptimizer,
	},
	Prior: dalle.Config{
		TextLen: 64, TextVocab: 2048, GridW: 16, GridH: 16, ImageVocab: 512,
		Dim: 512, Heads: 8, Layers: 12, Kernel: 11,
		Batch: 32, SampleBatch: 32,
		Optimizer: priorOptimizer,
	},
	CLIP: clip.Config{
		ImageSize: 64, Patch: 8, ImageDim: 256, ImageHeads: 4,
		TextLen: 64, TextVocab: 2048, TextDim: 256, TextHeads: 4,
		Layers: 6, Embed: 256, Batch: 128, EmbedBatch: 32,
		Optimizer: clipOptimizer,
	},
}

// Paper is 256x256 images of 32x32 tokens: the dVAE of appendix A, the
// 12-billion-parameter transformer of appendix B, and CLIP ViT-B/32. Batches
// are those of one device.
var Paper = Sizes{
	DVAE: dvae.Config{
		ImageSize: 256, Width: 256, Groups: 4, BlocksPerGroup: 2, Stem: 7,
		Codebook: 8192, CodeDim: 128, Batch: 8, CodeBatch: 8,
		Optimizer: dvaeOptimizer,
	},
	Prior: dalle.Config{
		TextLen: 256, TextVocab: 16384, GridW: 32, GridH: 32, ImageVocab: 8192,
		Dim: 3968, Heads: 62, Layers: 64, Kernel: 11,
		Batch: 1, SampleBatch: 8,
		Optimizer: priorOptimizer,
	},
	CLIP: clip.Config{
		ImageSize: 256, Patch: 32, ImageDim: 768, ImageHeads: 12,
		TextLen: 77, TextVocab: 16384, TextDim: 512, TextHeads: 8,
		Layers: 12, Embed: 512, Batch: 32, EmbedBatch: 32,
		Optimizer: clipOptimizer,
	},
	Precision: "paper",
}

// The optimisers' constants: appendices A.2 and B.2, and CLIP's.
var (
	dvaeOptimizer  = nn.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 1e-4}
	priorOptimizer = nn.AdamW{Beta1: 0.9, Beta2: 0.96, Eps: 1e-8, Decay: 4.5e-2, VarianceMax: 5}
	clipOptimizer  = nn.AdamW{Beta1: 0.9, Beta2: 0.98, Eps: 1e-6, Decay: 0.2}
)
