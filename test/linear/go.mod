module github.com/go-cluster/cluster/test/linear

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/go-cluster/cluster v0.1.0
	github.com/stretchr/testify v1.12.1
	golang.org/x/sys v0.49.0
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect
