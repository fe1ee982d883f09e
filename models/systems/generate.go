package systems

//go:generate go run github.com/gouache-ml/gouache/cmd/gouachec -system demo -o ../../gen/demo
//go:generate go run github.com/gouache-ml/gouache/cmd/gouachec -system emoji -o ../../gen/emoji
//go:generate go run github.com/gouache-ml/gouache/cmd/gouachec -system peers -o ../../gen/peers
//go:generate go run github.com/gouache-ml/gouache/cmd/gouachec -system gpupeers -target sm_90a -o ../../gen/gpupeers
