# The same as apply.sh, for Terraform. Use one of the two.

resource "google_iam_workload_identity_pool" "github" {
  project                   = "[[ project ]]"
  workload_identity_pool_id = "[[ pool ]]"
}

resource "google_iam_workload_identity_pool_provider" "github" {
  project                            = "[[ project ]]"
  workload_identity_pool_id          = google_iam_workload_identity_pool.github.workload_identity_pool_id
  workload_identity_pool_provider_id = "[[ provider ]]"
  attribute_condition                = "assertion.repository == '[[ repository ]]' && assertion.ref == '[[ ref ]]'"
  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
    "attribute.ref"        = "assertion.ref"
  }
  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "ci" {
  service_account_id = "projects/[[ project ]]/serviceAccounts/[[ service_account ]]"
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github.name}/attribute.repository/[[ repository ]]"
}
