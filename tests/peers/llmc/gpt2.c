// One training step of llm.c's CPU program at the sizes of gpt2.train: B 1, T 1280, 8 layers of 8 heads, 512 wide,
// 8192 tokens, with the flags of its own Makefile:
//
//     git clone https://github.com/karpathy/llm.c && git -C llm.c checkout f1e2ace651495b74ae22d45d1723443fd00ecd3a
//     cc -Ofast -march=native -fopenmp -DOMP -Illm.c tests/peers/llmc/gpt2.c -o bin/llmc -lm
//
// then go run ./tests/peers -llmc bin/llmc. Arguments: --threads N --steps N.
#define TESTING // leaves out llm.c's main
#include "train_gpt2.c"
#include <sys/resource.h>

enum { T = 1280, V = 8192 };

static double seconds(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + 1e-9 * t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

// uniform gives random numbers in (-1, 1).
static float uniform(unsigned long long *state) {
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (float)(*state >> 40) / (1 << 23) - 1;
}

int main(int argc, char **argv) {
	int threads = 2, steps = 5;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--threads")) threads = atoi(argv[i + 1]);
		if (!strcmp(argv[i], "--steps")) steps = atoi(argv[i + 1]);
	}
	omp_set_num_threads(threads);
	GPT2 model = {0};
	model.config = (GPT2Config){.max_seq_len = T, .vocab_size = V, .padded_vocab_size = V, .num_layers = 8, .num_heads = 8, .channels = 512};
	fill_in_parameter_sizes(model.param_sizes, model.config);
	for (int i = 0; i < NUM_PARAMETER_TENSORS; i++) model.num_parameters += model.param_sizes[i];
	model.params_memory = malloc_and_point_parameters(&model.params, model.param_sizes);
	unsigned long long state = 1;
	for (size_t i = 0; i < model.num_parameters; i++) model.params_memory[i] = 0.035f * uniform(&state);
	static int tokens[T + 1];
	for (int i = 0; i <= T; i++) tokens[i] = (int)((uniform(&state) + 1) / 2 * (V - 1));
	FILE *out = stdout;
	stdout = stderr; // llm.c prints while it allocates
	double *times = calloc(steps, sizeof *times);
	for (int i = -1; i < steps; i++) {
		double start = seconds();
		gpt2_forward(&model, tokens, tokens + 1, 1, T);
		gpt2_zero_grad(&model);
		gpt2_backward(&model);
		gpt2_update(&model, 1e-4f, 0.9f, 0.999f, 1e-8f, 0.01f, i + 2);
		if (i >= 0) times[i] = seconds() - start;
	}
	qsort(times, steps, sizeof *times, ascending);
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	fprintf(out, "{\"what\":\"gpt2\",\"threads\":%d,\"s_step\":{\"median\":%g,\"min\":%g,\"max\":%g,\"n\":%d},\"peak_rss_mb\":%g,\"loss\":%g}\n",
		threads, (times[(steps - 1) / 2] + times[steps / 2]) / 2, times[0], times[steps - 1], steps, u.ru_maxrss * 1024 / 1e6, model.mean_loss);
	return 0;
}
