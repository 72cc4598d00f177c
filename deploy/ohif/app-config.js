// OHIF beside the example PACS (deploy/orthanc.json): images and results come by DICOMweb from the same origin.
window.config = {
  routerBasename: '/',
  extensions: [],
  modes: [],
  showStudyList: true,
  investigationalUseDialog: { option: 'always' },
  // A segmentation lies on its images as soon as it is opened.
  disableConfirmationPrompts: true,
  // No film controls over the page's title: OHIF shows them on every secondary capture.
  customizationService: [{ autoCineModalities: { $set: ['US'] } }],
  defaultDataSourceName: 'pacs',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'pacs',
      configuration: {
        friendlyName: "dicomnode's example PACS",
        name: 'pacs',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        wadoUriRoot: '/dicom-web',
        qidoSupportsIncludeField: false,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        omitQuotationForMultipartRequest: true,
        // The PDF is fetched by its bulk data URI.
        bulkDataURI: { enabled: true, relativeResolution: 'studies' },
      },
    },
  ],
};
