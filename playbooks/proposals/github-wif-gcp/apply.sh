#!/bin/sh
# As an admin of project [[ project ]]: trust GitHub's tokens of one repository, and let it act as one service account.
set -eu
pool="projects/[[ project_number ]]/locations/global/workloadIdentityPools/[[ pool ]]"

# Each of these fails if the name is taken: then it is somebody else's, and another name is needed.
gcloud iam workload-identity-pools describe "[[ pool ]]" --project="[[ project ]]" --location=global >/dev/null 2>&1 ||
  gcloud iam workload-identity-pools create "[[ pool ]]" --project="[[ project ]]" --location=global

gcloud iam workload-identity-pools providers create-oidc "[[ provider ]]" \
  --project="[[ project ]]" --location=global --workload-identity-pool="[[ pool ]]" \
  --issuer-uri="https://token.actions.githubusercontent.com" \
  --attribute-mapping="google.subject=assertion.sub,attribute.repository=assertion.repository,attribute.ref=assertion.ref" \
  --attribute-condition="assertion.repository == '[[ repository ]]' && assertion.ref == '[[ ref ]]'"

gcloud iam service-accounts add-iam-policy-binding "[[ service_account ]]" \
  --project="[[ project ]]" --role=roles/iam.workloadIdentityUser \
  --member="principalSet://iam.googleapis.com/$pool/attribute.repository/[[ repository ]]"
