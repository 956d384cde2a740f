module github.com/go-cluster/cluster/admin

go 1.26.0

replace github.com/go-cluster/cluster => ../

require (
	github.com/go-cluster/cluster v0.0.0-00010101000000-000000000000
	github.com/stretchr/testify v1.12.1
	golang.org/x/sys v0.49.0
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect
