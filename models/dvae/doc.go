// Package dvae is the first stage: a discrete autoencoder that turns an image
// into a grid of tokens and back (section 2.1 and appendix A).
//
// Functions of the module "dvae":
//
//	train    one AdamW step on a batch of images with gumbel-softmax relaxation
//	eval     the loss with hard tokens (argmax, no noise), and tokens
//	encode   images to tokens by argmax of the logits
//	decode   tokens to images: phi^-1(sigmoid(mu)), ln b ignored
//	average  averages of the weights, see nn.Averages
//
// Inputs of train, besides lr, clip and update of nn.AdamW:
//
//	images  f32[B,S,S,3] in [0,1]
//	seed    i32, of the run: keys the gumbel noise together with step
//	step    i32, number of the step
//	tau     f32, temperature of the relaxation (paper: cosine 1 to 1/16 over 150,000)
//	beta    f32, weight of the KL term (paper: cosine 0 to 6.6 over 5,000)
//
// Results: loss = reconstruction + beta * sum of KL / number of pixel values;
// reconstruction, the mean of -ln f over pixel values, in nats, may be
// negative; kl, the mean KL to the uniform distribution over positions, in
// nats; tokens i32[B,h,w], the argmax, from which codebook use follows;
// grad_norm and skipped of nn.AdamW.
//
// eval takes images and beta and returns loss, reconstruction, kl, mse
// (between images and decoded images) and tokens.
//
// Start at Config and Build.
package dvae
