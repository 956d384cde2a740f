module github.com/go-cluster/cluster/cmd/cluster

go 1.26.0

replace (
	github.com/go-cluster/cluster => ../../
	github.com/go-cluster/cluster/admin => ../../admin
)

require (
	github.com/go-cluster/cluster v0.0.0-00010101000000-000000000000
	github.com/go-cluster/cluster/admin v0.0.0-00010101000000-000000000000
	github.com/spf13/cobra v1.10.2
	github.com/stretchr/testify v1.12.1
	golang.org/x/sys v0.49.0
	golang.org/x/term v0.47.0
)

require (
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)
